"""Data in memory: built-in and other data sets, and batches gathered from arrays."""

from trainloop.data.arrays import ArrayData
from trainloop.data.datasets import DATASETS, load
from trainloop.data.points import Box, Points
from trainloop.data.split import DataSplit

__all__ = ["DATASETS", "ArrayData", "Box", "DataSplit", "Points", "load"]
