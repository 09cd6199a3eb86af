"""Warnings and errors of this package that users may want to catch.

Errors are also built-in ones (``ValueError``, ``RuntimeError``, ...), so that code which knows
nothing of this package catches them too.
"""

__all__ = [
    "BenchmarkWarning",
    "CacheFormatError",
    "CacheWriteWarning",
    "CalibrationWarning",
    "DataMissingError",
    "DefinitionError",
    "EmbeddingNormWarning",
    "FileContentError",
    "InvalidNamesError",
    "NewerRecordError",
    "PartitionError",
    "RandomWeightsWarning",
    "RecordError",
    "SmallBatchWarning",
    "StaleFactsError",
    "SuiteError",
    "TokenizerUnavailableError",
    "TruncatedPromptWarning",
    "UncalibratedThresholdWarning",
    "UnknownNameError",
    "UnknownRowError",
    "UnreadableImageError",
    "UnreadableImageWarning",
    "WeightsUnavailableError",
]


# Files


class FileContentError(ValueError):
    """A file that was read is damaged, foreign or too large, or names what it may not name.

    Base of the errors for files of all kinds: suites, definitions, records, saved detectors, lists.
    """


# Names and images


class InvalidNamesError(ValueError, TypeError):
    """Something that is no list of names; the message says what to give instead."""


class UnreadableImageError(ValueError):
    """An image that could not be read or decoded; the message says why."""


class UnreadableImageWarning(UserWarning):
    """Images that could not be read and became rows of NaN."""


# Models and embeddings


class EmbeddingNormWarning(UserWarning):
    """Embeddings whose lengths are far from 1."""


class RandomWeightsWarning(UserWarning):
    """A model was asked for with an empty tag and has random weights."""


class StaleFactsError(RuntimeError):
    """Facts in the cache disagree with the loaded model; they were removed, and work may go on."""


class TokenizerUnavailableError(RuntimeError):
    """A model's weights are on this machine, but not its tokenizer."""


class TruncatedPromptWarning(UserWarning):
    """Prompts that are longer than the model's context and were cut."""


class WeightsUnavailableError(RuntimeError):
    """A model's weights are not on this machine and could not be downloaded."""


# The cache


class CacheFormatError(FileContentError):
    """A cache file is not what it should be: foreign, of another version, or of another shape."""


class CacheWriteWarning(UserWarning):
    """Results are right but could not be cached: the folder is full, read-only or over its cap."""


# Decisions


class CalibrationWarning(UserWarning):
    """A decision whose calibrated error rate is not guaranteed."""


class SmallBatchWarning(UserWarning):
    """A test-time method scored fewer images together than its `batch_size`; said once per fit."""


class UncalibratedThresholdWarning(UserWarning):
    """Decisions by a rule of thumb: no image has set the threshold; said once per fit."""


# Benchmark data


class BenchmarkWarning(UserWarning):
    """A benchmark's data are not what its definition says, e.g. of another number of images."""


class DataMissingError(FileNotFoundError):
    """Data of a benchmark are not on disk; the message says what to download and where it goes."""


class DefinitionError(FileContentError):
    """A benchmark definition cannot be used; the message names the file, the key and the fix."""


class SuiteError(FileContentError):
    """A suite on disk, or to be written, is not valid; the message names the file and the fix."""


# Benchmark results


class RecordError(FileContentError):
    """A record on disk cannot be read; the message names the file and the fix."""


class NewerRecordError(RecordError):
    """A record of a newer version of this package."""


class UnknownNameError(ValueError):
    """No method, baseline or suite has that name; the message gives the nearest ones."""


class UnknownRowError(ValueError):
    """A table has no row of that name; the message gives the nearest ones."""


# Jobs over many machines


class PartitionError(RuntimeError):
    """Partitions of a distributed job failed; the others are done and kept."""
