"""LSM experiments: supervised classification, its protocols, figures and speed."""
