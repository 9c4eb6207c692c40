// Numbers whose type is known when they are read: those of cuBLAS and cuDNN, which compute in float and wider.

#pragma once

#include "device.hpp"

#include <cstdint>
#include <vector>

constexpr int FLOAT = 0, HALF = 2; // in cudaDataType_t as in cudnnDataType_t

inline float number(const void *begin, int type, int64_t k) {
    return type == FLOAT ? static_cast<const float *>(begin)[k] : float(static_cast<const _Float16 *>(begin)[k]);
}

inline void put(void *begin, int type, int64_t k, double x) {
    if (type == FLOAT) static_cast<float *>(begin)[k] = float(x);
    else static_cast<_Float16 *>(begin)[k] = _Float16(x);
}

inline size_t width(int type) { return type == FLOAT ? sizeof(float) : sizeof(_Float16); }
