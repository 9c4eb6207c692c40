"""The service beside what a person would take instead: MLServer, TorchServe and the KServe SDK, same model, same load."""
