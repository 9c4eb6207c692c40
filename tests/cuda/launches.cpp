// Launches: kernels are registered by the addresses of their host functions, and played by their names.

#include "kernels.hpp"

#include <cxxabi.h>

#include <cstdlib>
#include <map>
#include <memory>

namespace {

const std::map<std::string, Maker *> makers = {
    {"_BinaryElementWiseSimple", simple},
    {"_BinaryElementWiseRhsPerChannelBatch1", per_channel},
    {"_BinaryElementWiseRhsPerChannelBatchN", per_channel},
    {"_BinaryElementWise", broadcast},
    {"_UnaryElementWise", unary},
    {"_TenaryElementWise", choose},
    {"_TenaryElementWiseSimple", choose_simple},
    {"_Clip", clip},
    {"_GatherKernel", gather},
    {"_ScatterNDKernel", scatter},
    {"_ConcatKernelSameConcatDim", concat},
    {"_ConcatKernelOutputMajor", concat_any},
    {"_SplitKernelSameSplitDim", split},
    {"_SplitSmallInnerKernel", split_any},
    {"_SplitKernel", split_by_table},
    {"BroadcastBiasKernel", bias},
    {"reduce_matrix_columns_kernel", sum_of_rows},
    {"reduce_matrix_rows_kernel", sum_of_columns},
    {"RangeKernel", range},
    {"TransposeKernel", transpose},
    {"ExpandKernel", expand},
    {"ExpandKernel2D", expand_matrix},
    {"_SliceKernel", slice},
    {"ReverseSequenceImplKernel", reverse},
    {"_ReverseBySequenceKernel", reverse_inputs},
    {"Transpose4DKernelParallelizeMultipleElementsPerThreadInInnermostDim", transpose_rows},
};

std::map<const void *, Kernel> kernels; // by the address of their launch on the host

std::string plain(const std::string &mangled) {
    int status;
    std::unique_ptr<char, void (*)(void *)> name(abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status), free);
    return status ? mangled : name.get();
}

// "void onnxruntime::cuda::_Clip<float>(float const*, ...)", as a name and what stands in the outer brackets.
Kernel parse(const std::string &text) {
    Kernel found;
    std::string word;
    int depth = 0;
    auto give = [&] {
        word.erase(word.find_last_not_of(' ') + 1);
        found.given.push_back(word), word.clear();
    };
    for (char c : text) {
        if (depth == 0 && c == '(') break;
        if (c == '>' && --depth == 0) give();
        else if (c == '<' && depth++ == 0) found.name = word, word.clear();
        else if (c == ',' && depth == 1) give();
        else if (c != ' ' || !word.empty()) word += c;
    }
    if (found.name.empty()) found.name = word;
    found.name.erase(0, found.name.find_last_of(": ") + 1);
    return found;
}

std::map<const void *, std::string> registered; // mangled; parsed when they are launched, as there are thousands

} // namespace

extern "C" {

void **__cudaRegisterFatBinary(void *) { return nullptr; }
void __cudaRegisterFatBinaryEnd(void **) {}
void __cudaUnregisterFatBinary(void **) {}
void __cudaRegisterVar(void **, char *, char *, const char *, int, size_t, int, int) {}

void __cudaRegisterFunction(void **, const char *host, char *, const char *name, int, void *, void *, void *, void *, int *) {
    registered[host] = name;
}

struct Launch {
    dim3 grid, block;
    size_t shared;
    cudaStream_t stream;
};
static thread_local std::vector<Launch> launches;

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
    return launches.push_back({grid, block, shared, stream}), 0;
}

cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) {
    auto [a, b, c, d] = launches.back();
    launches.pop_back();
    return *grid = a, *block = b, *shared = c, *static_cast<cudaStream_t *>(stream) = d, cudaSuccess;
}

cudaError_t cudaLaunchKernel(const void *host, dim3 grid, dim3 block, void **arguments, size_t, cudaStream_t stream) {
    std::lock_guard<std::recursive_mutex> locked(device_lock());
    auto known = kernels.find(host);
    if (known == kernels.end()) known = kernels.emplace(host, parse(plain(registered[host]))).first;
    auto maker = makers.find(known->second.name);
    if (maker == makers.end()) stop("%s: nobody plays this kernel yet (tests/cuda)", plain(registered[host]).c_str());
    return queue(stream, maker->second(known->second, {arguments, grid, block})), cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *host) {
    return *kernel = static_cast<cudaKernel_t>(const_cast<void *>(host)), cudaSuccess;
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **arguments, size_t shared, cudaStream_t stream) {
    return cudaLaunchKernel(kernel, grid, block, arguments, shared, stream);
}
}
