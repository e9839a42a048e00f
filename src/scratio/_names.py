"""Names that several parts look for."""

X = "X"
"""Name of the embedding that is ``adata.X`` itself, as in scanpy."""
RESULT_MARK = "scratio"
"""Entry of a result in ``uns`` that marks it as scratio's: the versions of what computed it."""
