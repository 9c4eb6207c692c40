// Streams, events and CUDA graphs, as the CUDA programming guide has them (section CUDA Graphs, Prohibited and Unhandled
// Operations, for what may not be called meanwhile).

#include "device.hpp"

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

namespace {

using Recording = std::vector<Work>;

struct Stream {
    std::deque<Work> waiting;
    Recording *recording = nullptr;
};

using Event = std::shared_ptr<bool>; // whether it has happened

std::map<cudaStream_t, Stream> streams;
std::map<cudaEvent_t, std::pair<cudaStream_t, Event>> events;
std::set<Recording *> broken; // recordings in which something was called that may not be

char *next_handle() { static char *last = nullptr; return last += 16; }

} // namespace

std::recursive_mutex &device_lock() { static std::recursive_mutex one; return one; }

bool is_recording(cudaStream_t stream) { return streams[stream].recording; }

void finish(cudaStream_t stream) {
    auto &waiting = streams[stream].waiting;
    while (!waiting.empty()) {
        Work work = std::move(waiting.front());
        waiting.pop_front();
        work();
    }
}

void finish_all() {
    for (auto &[stream, _] : streams) finish(stream);
}

// cudaStreamCaptureModeGlobal: what waits, and what takes or gives memory, is for nobody while anything is recorded.
bool spoils() {
    bool found = false;
    for (auto &[_, stream] : streams)
        if (stream.recording) broken.insert(stream.recording), found = true;
    if (found) count("calls that spoil a recording");
    return found;
}

void queue(cudaStream_t stream, Work work) {
    LOCKED();
    auto &one = streams[stream];
    if (one.recording) one.recording->push_back(std::move(work));
    else one.waiting.push_back(std::move(work));
}

extern "C" {

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *given) {
    return queue(stream, [=] { function(given); }), cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) {
    LOCKED();
    streams[*stream = reinterpret_cast<cudaStream_t>(next_handle())] = {};
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    LOCKED();
    finish(stream), streams.erase(stream);
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    LOCKED();
    WAITS();
    finish(stream);
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
    LOCKED();
    WAITS();
    finish_all();
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) {
    LOCKED();
    events[*event = reinterpret_cast<cudaEvent_t>(next_handle())] = {nullptr, std::make_shared<bool>(true)};
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) { LOCKED(); events.erase(event); return cudaSuccess; }

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    LOCKED();
    auto happened = std::make_shared<bool>(false);
    events[event] = {stream, happened};
    queue(stream, [=] { *happened = true; });
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    LOCKED();
    WAITS();
    if (auto [stream, happened] = events[event]; !*happened) finish(stream);
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
    LOCKED();
    if (mode != cudaStreamCaptureModeGlobal) stop("expected the global mode of capture, got %d", mode);
    finish(stream), streams[stream].recording = new Recording;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    LOCKED();
    auto *recording = std::exchange(streams[stream].recording, nullptr);
    *graph = reinterpret_cast<cudaGraph_t>(recording);
    if (!broken.erase(recording)) return cudaSuccess;
    return *graph = nullptr, delete recording, cudaErrorStreamCaptureInvalidated;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus *status) {
    LOCKED();
    *status = streams[stream].recording ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *made, cudaGraph_t graph, unsigned long long) {
    *made = reinterpret_cast<cudaGraphExec_t>(new Recording(*reinterpret_cast<Recording *>(graph)));
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
    LOCKED();
    count("replays");
    for (auto &work : *reinterpret_cast<Recording *>(graph)) queue(stream, work);
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete reinterpret_cast<Recording *>(graph), cudaSuccess; }

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
    LOCKED();
    finish_all();
    return delete reinterpret_cast<Recording *>(graph), cudaSuccess;
}
}
