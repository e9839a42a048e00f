"""Statistics on arrays: cross-fitting folds and support."""

from scratio.stats._folds import split_rows, stratified_folds
from scratio.stats._scaling import local_scale
from scratio.stats._support import overlap_support

__all__ = ["local_scale", "overlap_support", "split_rows", "stratified_folds"]
