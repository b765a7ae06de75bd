//! Reading and writing tables, and the toy densities against their own samples.
