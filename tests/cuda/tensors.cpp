// The part of cuDNN that ONNX Runtime's ReduceSum calls (core/providers/cuda/reduction/reduction_ops.cc), and descriptors.

#include "cudnn.hpp"

#include <algorithm>

static size_t product(const std::vector<int> &sizes) {
    size_t all = 1;
    for (int size : sizes) all *= size;
    return all;
}

extern "C" {

const char *cudnnGetErrorString(int status) { return status ? "error" : "success"; }
int cudnnCreate(Handle **handle) { return *handle = new Handle, 0; }
int cudnnDestroy(Handle *handle) { return delete handle, 0; }
int cudnnSetStream(Handle *handle, cudaStream_t stream) { return handle->stream = stream, 0; }

int cudnnCreateTensorDescriptor(Tensor **tensor) { return *tensor = new Tensor, 0; }
int cudnnDestroyTensorDescriptor(Tensor *tensor) { return delete tensor, 0; }
int cudnnSetTensorNdDescriptor(Tensor *tensor, int type, int rank, const int *sizes, const int *) {
    return *tensor = {{sizes, sizes + rank}, type}, 0;
}

int cudnnGetTensorNdDescriptor(const Tensor *tensor, int, int *type, int *rank, int *sizes, int *strides) {
    *type = tensor->type, *rank = int(tensor->sizes.size());
    for (int k = *rank, stride = 1; k-- > 0; stride *= sizes[k]) sizes[k] = tensor->sizes[k], strides[k] = stride;
    return 0;
}

int cudnnCreateFilterDescriptor(Tensor **filter) { return cudnnCreateTensorDescriptor(filter); }
int cudnnDestroyFilterDescriptor(Tensor *filter) { return cudnnDestroyTensorDescriptor(filter); }
int cudnnSetFilterNdDescriptor(Tensor *filter, int type, int, int rank, const int *sizes) {
    return cudnnSetTensorNdDescriptor(filter, type, rank, sizes, nullptr);
}

int cudnnCreateReduceTensorDescriptor(int **reduction) { return *reduction = new int, 0; }
int cudnnDestroyReduceTensorDescriptor(int *reduction) { return delete reduction, 0; }
int cudnnSetReduceTensorDescriptor(int *reduction, int operation, int, int, int, int) { return *reduction = operation, 0; }
int cudnnGetReductionIndicesSize(Handle *, int *, Tensor *, Tensor *, size_t *size) { return *size = 0, 0; }
int cudnnGetReductionWorkspaceSize(Handle *, int *, Tensor *, Tensor *, size_t *size) { return *size = 256, 0; }

int cudnnReduceTensor(Handle *handle, int *operation, void *, size_t, void *, size_t, const void *, Tensor *x_shape,
                      const void *x, const void *, Tensor *y_shape, void *y) {
    if (*operation != 0) return NOT_SUPPORTED; // only sums
    queue(handle->stream, [=, all = x_shape->sizes, left = y_shape->sizes, type = x_shape->type] {
        auto from = reach(x, "sum");
        std::vector<double> sums(product(left));
        for (size_t i = 0, count = product(all); i < count; i++) {
            size_t to = 0, rest = i;
            for (size_t k = all.size(), stride = 1; k-- > 0; stride *= left[k], rest /= all[k])
                if (left[k] > 1) to += rest % all[k] * stride;
            sums[to] += number(from, type, i);
        }
        for (size_t i = 0; i < sums.size(); i++) put(reach(y, "sum"), type, i, sums[i]);
    });
    return 0;
}
}
