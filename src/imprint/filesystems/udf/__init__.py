"""UDF: names and contents of all that OSTA's revisions 1.02 to 2.60 write."""
