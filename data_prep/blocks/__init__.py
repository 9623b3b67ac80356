"""The blocks of the data pipeline, one idea a file; each is a datatrove PipelineStep."""
