"""Names and numbers that several parts use."""

X = "X"
"""Name of the embedding that is ``adata.X`` itself, as in scanpy."""
RESULT_MARK = "scratio"
"""Entry of a result in ``uns`` that marks it as scratio's: the versions of what computed it."""
SIGNIFICANT = 2.0
"""Standard errors by which two figures must differ to be taken as different."""
KMEANS_ON_WINDOWS = "(MiniBatch)?KMeans is known to have a memory leak on Windows"
"""Start of a warning of scikit-learn's. It asks for a setting of the environment that a user of scratio has no need of:
what is lost is little, since scratio calls k-means a few times."""
