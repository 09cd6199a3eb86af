"""The order of the gallery: from the first steps to a method of one's own."""

ORDER = [
    "zero_shot_folder",
    "threshold",
    "explain",
    "patch_map",
    "few_id_images",
    "own_corpus",
    "precomputed_embeddings",
    "against_pyod",
    "grid_search",
    "drifting_stream",
    "ray_jobs",
]


class FirstStepsFirst:
    """Key that sorts examples by the list above; others come behind it, by name."""

    def __init__(self, folder):
        self.folder = folder

    def __repr__(self):
        return "<FirstStepsFirst>"

    def __call__(self, file_name):
        name = file_name.removesuffix(".py")
        return (ORDER.index(name) if name in ORDER else len(ORDER), name)
