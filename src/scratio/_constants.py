"""Names and numbers that several parts use."""

X = "X"
"""Name of the embedding that is ``adata.X`` itself, as in scanpy."""
RESULT_MARK = "scratio"
"""Entry of a result in ``uns`` that marks it as scratio's: the versions of what computed it."""
SIGNIFICANT = 2.0
"""Standard errors by which two figures must differ to be taken as different."""
