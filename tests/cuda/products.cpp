// The part of cuBLAS that ONNX Runtime's MatMul and Gemm call. Matrices are column-major, as in Fortran.

#include "numbers.hpp"

#include <cstring>

namespace {

constexpr int TF32 = 3;       // cublasMath_t, CUBLAS_TF32_TENSOR_OP_MATH
constexpr int TRANSPOSED = 1; // cublasOperation_t

struct Handle {
    cudaStream_t stream = nullptr;
    int math = 0;
};

struct Matrix {
    const void *begin;
    int rows; // lda
    int type = FLOAT;
};

// The factors of a product in TF32 have 10 bits of fraction.
float rounded(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    bits = (bits + 0x1000) & ~0x1fffu;
    memcpy(&x, &bits, 4);
    return x;
}

// C = alpha op(A) op(B) + beta C; the sums in double.
int product(Handle *handle, int how_a, int how_b, int m, int n, int k, float alpha, Matrix a, Matrix b, float beta, Matrix c) {
    bool coarse = handle->math == TF32;
    queue(handle->stream, [=] {
        for (int64_t j = 0; j < n; j++)
            for (int64_t i = 0; i < m; i++) {
                double sum = 0;
                auto A = reach(a.begin, "product"), B = reach(b.begin, "product");
                for (int64_t p = 0; p < k; p++) {
                    float x = number(A, a.type, how_a == TRANSPOSED ? p + i * a.rows : i + p * a.rows);
                    float y = number(B, b.type, how_b == TRANSPOSED ? j + p * b.rows : p + j * b.rows);
                    sum += coarse ? double(rounded(x)) * rounded(y) : double(x) * y;
                }
                auto C = const_cast<void *>(reach(c.begin, "product"));
                int64_t at = i + j * c.rows;
                double before = beta ? beta * number(C, c.type, at) : 0;
                put(C, c.type, at, alpha * sum + before);
            }
    });
    return 0;
}

} // namespace

extern "C" {

int cublasCreate_v2(Handle **handle) { return *handle = new Handle, 0; }
int cublasDestroy_v2(Handle *handle) { return delete handle, 0; }
int cublasSetStream_v2(Handle *handle, cudaStream_t stream) { return handle->stream = stream, 0; }
int cublasSetMathMode(Handle *handle, int math) { return handle->math = math & 0xf, 0; }
int cublasGetMathMode(Handle *handle, int *math) { return *math = handle->math, 0; }
int cublasLtCreate(void **handle) { return *handle = nullptr, 0; }
int cublasLtDestroy(void *) { return 0; }

int cublasSgemm_v2(Handle *handle, int how_a, int how_b, int m, int n, int k, const float *alpha, const float *a, int rows_a,
                   const float *b, int rows_b, const float *beta, float *c, int rows_c) {
    return product(handle, how_a, how_b, m, n, k, *alpha, {a, rows_a}, {b, rows_b}, *beta, {c, rows_c});
}

int cublasGemmEx(Handle *handle, int how_a, int how_b, int m, int n, int k, const void *alpha, const void *a, int type_a,
                 int rows_a, const void *b, int type_b, int rows_b, const void *beta, void *c, int type_c, int rows_c,
                 int compute, int) {
    if (compute != 68) stop("cublasGemmEx: expected sums in float (68), got %d", compute);
    return product(handle, how_a, how_b, m, n, k, *static_cast<const float *>(alpha), {a, rows_a, type_a},
                   {b, rows_b, type_b}, *static_cast<const float *>(beta), {c, rows_c, type_c});
}

// C = alpha op(A) + beta op(B); ONNX Runtime turns a matrix with it (core/providers/cuda/tensor/transpose.cc).
int cublasSgeam(Handle *handle, int how_a, int, int m, int n, const float *alpha, const float *a, int rows_a,
                const float *beta, const float *, int, float *c, int rows_c) {
    if (*alpha != 1 || *beta != 0) stop("cublasSgeam: expected a matrix that is only turned");
    queue(handle->stream, [=] {
        for (int64_t j = 0; j < n; j++)
            for (int64_t i = 0; i < m; i++)
                reach(c, "turned")[i + j * rows_c] =
                    reach(a, "turned")[how_a == TRANSPOSED ? j + i * rows_a : i + j * rows_a];
    });
    return 0;
}
}
