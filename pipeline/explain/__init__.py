"""Pictures of what a model sees: each method a file, one function of a model and images; `explanations` chooses."""
