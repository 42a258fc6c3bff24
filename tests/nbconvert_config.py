"""How `make notebooks` stores a notebook: run, each stream in one piece, a widget as the picture beside it."""

from nbconvert.preprocessors import CoalesceStreamsPreprocessor, Preprocessor


class Still(Preprocessor):
    """Takes out the widgets, which need the kernel that made them."""

    def preprocess_cell(self, cell, resources, index):
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
        return cell, resources


c = get_config()  # noqa: F821, the name is traitlets' own
c.ExecutePreprocessor.enabled = True
c.ExecutePreprocessor.timeout = 600
c.ExecutePreprocessor.store_widget_state = False
c.ExecutePreprocessor.record_timing = False
c.Exporter.preprocessors = [Still, CoalesceStreamsPreprocessor]  # after the run
