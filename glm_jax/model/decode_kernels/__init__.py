"""A step of decoding on TPUs in two kernels a layer, which read weights and caches as one stream.

With one operation after another, a TPU waits for memory at the start of each: reading a layer of
GLM-2B takes as long as a dozen of them. Here the next block of weights, or of the cache, is on its
way while one is used. On a chip with two cores each computes half of the heads and of the MLP.
"""
