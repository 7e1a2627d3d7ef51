"""Options of tf.data pipelines."""

import tensorflow as tf


def untuned_options() -> tf.data.Options:
    """Options of a pipeline whose parallelism is fixed and whose steps stay as they are written.

    The thread that tunes a pipeline may miss that its iterator is dropped and sleep on, up to a
    minute. Dropping waits for it with Python's lock held: the process does nothing meanwhile, and
    other processes of its run would take it for lost.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    # Rewriting takes a fifth of a second for each iterator, and finds nothing to merge.
    options.experimental_optimization.apply_default_optimizations = False
    return options
