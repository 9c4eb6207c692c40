// Memory of the device and of the host, and copies between them, as the documentation of the CUDA runtime has them
// (Memory Management; API synchronization behavior, for which copies return before they are done).

#include "device.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>

namespace {

constexpr size_t SIZE = size_t(4) << 30;
constexpr size_t ALIGNED = 256;
constexpr int RUBBISH = 0xCD;

// The same pages twice: nobody may touch those that programs see.
struct Memory {
    char *seen, *real;
    std::map<char *, size_t> taken;

    Memory() {
        int file = memfd_create("device", 0);
        if (file < 0 || ftruncate(file, SIZE)) stop("no memory for the device");
        auto map = [file](int access) {
            return static_cast<char *>(mmap(nullptr, SIZE, access, MAP_SHARED | MAP_NORESERVE, file, 0));
        };
        seen = map(PROT_NONE), real = map(PROT_READ | PROT_WRITE);
        if (seen == MAP_FAILED || real == MAP_FAILED) stop("no room for the device");
    }

    char *take(size_t size) {
        size = (std::max(size, size_t(1)) + ALIGNED - 1) / ALIGNED * ALIGNED;
        char *at = seen;
        for (auto [begin, length] : taken) {
            if (size_t(begin - at) >= size) break;
            at = begin + length;
        }
        if (at + size > seen + SIZE) return nullptr;
        memset(real + (at - seen), RUBBISH, size);
        return taken[at] = size, at;
    }
};

Memory &memory() { static Memory one; return one; }
std::map<void *, size_t> pinned;

bool is_pinned(const void *address) {
    auto above = pinned.upper_bound(const_cast<void *>(address));
    if (above == pinned.begin()) return false;
    auto [begin, size] = *--above;
    return static_cast<const char *>(address) < static_cast<char *>(begin) + size;
}

char *anywhere(const void *address) {
    return static_cast<char *>(on_device(address) ? inside(address, "copy") : const_cast<void *>(address));
}

// Counted when it is done, so that a copy in a recording counts in each replay.
void copy(void *target, const void *source, size_t size) {
    static const char *ways[] = {"on the host", "to the device", "to the host", "on the device"};
    std::string way = ways[on_device(target) + 2 * on_device(source)];
    count(("copies " + way).c_str()), count(("bytes " + way).c_str(), long(size));
    memmove(anywhere(target), anywhere(source), size);
}

} // namespace

bool on_device(const void *address) {
    auto at = static_cast<const char *>(address);
    return at >= memory().seen && at < memory().seen + SIZE;
}

void *inside(const void *address, const char *who) {
    if (!on_device(address)) stop("%s: expected an address of the device, got %p", who, address);
    return memory().real + (static_cast<const char *>(address) - memory().seen);
}

extern "C" {

cudaError_t cudaMalloc(void **address, size_t size) {
    LOCKED();
    ALONE();
    *address = memory().take(size);
    return *address ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFree(void *address) {
    LOCKED();
    ALONE();
    finish_all(); // it waits for everything
    if (address && !memory().taken.erase(static_cast<char *>(address))) return cudaErrorInvalidValue;
    return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **address, size_t size, unsigned) {
    LOCKED();
    ALONE();
    *address = aligned_alloc(ALIGNED, (size + ALIGNED - 1) / ALIGNED * ALIGNED);
    pinned[*address] = size;
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **address, size_t size) { return cudaHostAlloc(address, size, 0); }

cudaError_t cudaFreeHost(void *address) {
    LOCKED();
    ALONE();
    pinned.erase(address), free(address);
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *left, size_t *all) {
    LOCKED();
    *left = *all = SIZE;
    for (auto [_, size] : memory().taken) *left -= size;
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *target, const void *source, size_t size, cudaMemcpyKind, cudaStream_t stream) {
    LOCKED();
    auto later = [=] { copy(target, source, size); };
    if (is_recording(stream) || (on_device(target) && on_device(source))) return queue(stream, later), cudaSuccess;
    if (!on_device(source) && !is_pinned(source)) { // is read before this call returns
        auto kept = std::make_shared<std::string>(static_cast<const char *>(source), size);
        return queue(stream, [=] { copy(target, kept->data(), size); }), cudaSuccess;
    }
    queue(stream, later);
    if (!on_device(target) && !is_pinned(target)) finish(stream); // returns when it is done
    return cudaSuccess;
}

// On the stream of no name, which waits for none of those that the provider makes. Bytes of the host that is not pinned
// are only staged when it returns, and nobody waits for a copy on the device.
cudaError_t cudaMemcpy(void *target, const void *source, size_t size, cudaMemcpyKind kind) {
    LOCKED();
    WAITS();
    finish(nullptr);
    cudaMemcpyAsync(target, source, size, kind, nullptr);
    if (!on_device(target) || is_pinned(source)) finish(nullptr);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *target, int value, size_t size, cudaStream_t stream) {
    queue(stream, [=] { memset(inside(target, "memset"), value, size); });
    return cudaSuccess;
}

}
