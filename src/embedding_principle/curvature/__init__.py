"""Second derivatives of the risk: Hessians, their inertia and their extreme eigenvalues."""
