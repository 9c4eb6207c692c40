// What the parts of cuDNN have in common.

#pragma once

#include "numbers.hpp"

constexpr int NOT_SUPPORTED = 3000; // CUDNN_STATUS_NOT_SUPPORTED

struct Handle {
    cudaStream_t stream = nullptr;
};

struct Tensor { // cudnnTensorDescriptor_t, cudnnFilterDescriptor_t; packed
    std::vector<int> sizes;
    int type;
};
