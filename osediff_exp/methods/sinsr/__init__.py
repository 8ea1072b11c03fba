"""SinSR: ResShift in one step, by distilling its deterministic chain (Wang et al., CVPR 2024; arXiv 2311.14760)."""
