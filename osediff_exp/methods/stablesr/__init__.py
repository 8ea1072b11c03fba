"""StableSR (Wang et al., "Exploiting Diffusion Prior for Real-World Image Super-Resolution", IJCV 2024; IceClear/StableSR)."""
