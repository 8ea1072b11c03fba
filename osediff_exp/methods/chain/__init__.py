"""The diffusion chain that many-step methods share: noising loss, start points, guidance, samplers.

Everything here is a pure function of its arguments: timesteps and noise are handed in.
"""
