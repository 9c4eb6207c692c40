// A CUDA device made of host memory, so that ONNX Runtime's CUDA provider runs where no GPU is.
//
// It is as unkind as the CUDA programming guide allows: what is queued on a stream is done when somebody waits for that
// stream, and not before; memory is filled with rubbish; nobody but the device may touch it; and whatever may not be
// called while a stream is captured fails, and spoils the recording.

#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <mutex>

using Work = std::function<void()>;

// Everything here happens under it, so that threads of the service may use the device at once.
std::recursive_mutex &device_lock();
#define LOCKED() std::lock_guard<std::recursive_mutex> locked(device_lock())

// Whether an address is the device's.
bool on_device(const void *address);

// The address under which the host, playing the device, reaches memory of the device. An address of the host is an
// error of the program that we run: it ends the process and says where.
void *inside(const void *address, const char *who);

template <class T> T *reach(T *address, const char *who) {
    return static_cast<T *>(inside(const_cast<const void *>(static_cast<const volatile void *>(address)), who));
}

// Queue work on a stream, or record it where the stream is being captured.
void queue(cudaStream_t stream, Work work);

// Do what waits on a stream, or on all.
void finish(cudaStream_t stream);
void finish_all();

bool is_recording(cudaStream_t stream);

// Whether anything is being recorded; what asks may not be called then, and has spoilt the recording.
bool spoils();
#define ALONE() if (spoils()) return cudaErrorStreamCaptureUnsupported
#define WAITS() ALONE(); count("waits")

// Ends the process with a line: what was asked for is not played here, or would be undefined on a GPU.
[[noreturn]] void stop(const char *format, ...) __attribute__((format(printf, 1, 2)));

// Count something that a test asks about.
void count(const char *what, long times = 1);
