"""What works inside the network: attention as it is looked at, and as it is changed.

It reaches the rest by two doors: a hook of `samplers.sample` that may change x (Attend-and-Excite, SynGen), and the
keyword argument `attention` of a condition (perturbed, normalised and structured attention). So every guidance, sampler
and schedule works with it, and none of them knows of it.
"""
