"""Problems, solutions and the registry of the backends in the folder `solvers`."""
