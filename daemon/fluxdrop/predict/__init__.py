"""Running the model: bundles, the compiler, and the engines that run what it makes."""
