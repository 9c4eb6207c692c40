"""A model of MLServer that keeps states. The session is a tensor: MLServer's batcher drops what else a request says."""

import numpy as np
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput, TensorData
from states import States


class Recurrence(MLModel):
    """Steps of sessions, as many at once as the adaptive batcher hands over."""

    async def load(self) -> bool:
        """Read the model beside this file."""
        self.states = States("model.onnx")
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer `session [B, 1]` and `x [B, I]` with `y [B, H]`, whose many numbers are not validated once more."""
        session, x = payload.inputs
        rows = np.array(x.data.root, np.float32).reshape(x.shape)
        y = self.states.step(session.data.root, rows)
        output = ResponseOutput.model_construct(
            name="y",
            shape=list(y.shape),
            datatype="FP32",
            data=TensorData.model_construct(root=y.ravel().tolist()),
        )
        return InferenceResponse.model_construct(model_name=self.name, outputs=[output])
