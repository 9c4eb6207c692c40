// The part of cuDNN that ONNX Runtime's LSTM, GRU and RNN call, by the equations of its documentation (cudnnRNNForward,
// cudnnRNNMode_t). One layer, in one direction or both; inputs are time-major and padded.

#include "cudnn.hpp"

#include <algorithm>
#include <cmath>

namespace {

enum { RELU, TANH, LSTM, GRU };  // cudnnRNNMode_t
constexpr int BIDIRECTIONAL = 1; // cudnnDirectionMode_t

struct Data { // cudnnRNNDataDescriptor_t
    int steps, batch, width;
};

struct Recurrence { // cudnnRNNDescriptor_t
    int mode, inputs, hidden, type, directions;
    int gates() const { return mode == LSTM ? 4 : mode == GRU ? 3 : 1; }
    // Where a matrix or its bias is among a direction's weights: matrices first, those of the input before the recurrent.
    size_t matrix(int k) const {
        size_t own = std::min(k, gates()), other = std::max(k - gates(), 0);
        return hidden * (own * inputs + other * hidden);
    }
    size_t bias(int k) const { return matrix(2 * gates()) + size_t(k) * hidden; }
    size_t size() const { return bias(2 * gates()); }
};

using Row = std::vector<float>;

Row read(const void *begin, int type, size_t first, size_t size) {
    Row row(size);
    for (size_t i = 0; i < size; i++) row[i] = number(begin, type, first + i);
    return row;
}

void write(void *begin, int type, size_t first, const Row &row) {
    for (size_t i = 0; i < row.size(); i++) put(begin, type, first + i, row[i]);
}

// A number as it is kept between two steps.
float kept(int type, double x) { return type == FLOAT ? float(x) : float(_Float16(x)); }

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// Products of all gates for one row, W x + b, `[gates, hidden]`.
std::vector<double> products(const Recurrence &cell, const Row &weights, bool recurrent, const Row &x) {
    std::vector<double> all;
    for (int gate = 0; gate < cell.gates(); gate++) {
        int k = gate + recurrent * cell.gates();
        for (int unit = 0; unit < cell.hidden; unit++) {
            double sum = weights[cell.bias(k) + unit];
            auto begin = &weights[cell.matrix(k) + unit * x.size()];
            for (size_t i = 0; i < x.size(); i++) sum += double(begin[i]) * x[i];
            all.push_back(sum);
        }
    }
    return all;
}

void step(const Recurrence &cell, const Row &weights, const Row &x, Row &h, Row &c) {
    auto own = products(cell, weights, false, x), before = products(cell, weights, true, h);
    int size = cell.hidden;
    for (int u = 0; u < size; u++) {
        auto sum = [&](int gate) { return own[gate * size + u] + before[gate * size + u]; };
        if (cell.mode == RELU) h[u] = kept(cell.type, std::max(sum(0), 0.0));
        if (cell.mode == TANH) h[u] = kept(cell.type, std::tanh(sum(0)));
        if (cell.mode == LSTM) { // input, forget, new, output
            c[u] = kept(cell.type, sigmoid(sum(1)) * c[u] + sigmoid(sum(0)) * std::tanh(sum(2)));
            h[u] = kept(cell.type, sigmoid(sum(3)) * std::tanh(double(c[u])));
        }
        if (cell.mode == GRU) { // reset, update, new
            double update = sigmoid(sum(1)), fresh = std::tanh(own[2 * size + u] + sigmoid(sum(0)) * before[2 * size + u]);
            h[u] = kept(cell.type, (1 - update) * fresh + update * h[u]);
        }
    }
}

// All addresses are the host's; states are `[directions, batch, hidden]`, outputs `[steps, batch, directions hidden]`.
struct Sequences {
    const int32_t *lengths;
    const void *x, *hx, *cx;
    void *y, *hy, *cy;

    // One direction of one row.
    void run(const Recurrence &cell, const Data &shape, const Row &weights, int row, int direction) const {
        size_t size = cell.hidden, length = lengths[row], state = (size_t(direction) * shape.batch + row) * size;
        auto place = [&](size_t t) { return t * shape.batch + row; };
        auto out = [&](size_t t) { return (place(t) * cell.directions + direction) * size; };
        auto h = hx ? read(hx, cell.type, state, size) : Row(size), c = cx ? read(cx, cell.type, state, size) : Row(size);
        for (size_t k = 0; k < length; k++) {
            size_t t = direction ? length - 1 - k : k;
            step(cell, weights, read(x, cell.type, place(t) * cell.inputs, cell.inputs), h, c);
            write(y, cell.type, out(t), h);
        }
        for (size_t t = length; t < size_t(shape.steps); t++) write(y, cell.type, out(t), Row(size)); // what pads is 0
        if (hy) write(hy, cell.type, state, h);
        if (cy) write(cy, cell.type, state, c);
    }
};

template <class T> T *reach_if(T *address) { return address ? reach(address, "state") : nullptr; }

} // namespace

extern "C" {

int cudnnCreateDropoutDescriptor(void **dropout) { return *dropout = nullptr, 0; }
int cudnnDestroyDropoutDescriptor(void *) { return 0; }
int cudnnDropoutGetStatesSize(Handle *, size_t *size) { return *size = 16, 0; }
int cudnnSetDropoutDescriptor(void *, Handle *, float, void *, size_t, unsigned long long) { return 0; }

int cudnnCreateRNNDescriptor(Recurrence **cell) { return *cell = new Recurrence, 0; }
int cudnnDestroyRNNDescriptor(Recurrence *cell) { return delete cell, 0; }
int cudnnSetRNNDescriptor_v8(Recurrence *cell, int, int mode, int, int direction, int, int type, int, int, int inputs,
                             int hidden, int projected, int layers, void *, unsigned) {
    if ((type != FLOAT && type != HALF) || projected != hidden || layers != 1) return NOT_SUPPORTED;
    return *cell = {mode, inputs, hidden, type, direction == BIDIRECTIONAL ? 2 : 1}, 0;
}

int cudnnCreateRNNDataDescriptor(Data **data) { return *data = new Data, 0; }
int cudnnDestroyRNNDataDescriptor(Data *data) { return delete data, 0; }
int cudnnSetRNNDataDescriptor(Data *data, int, int, int steps, int batch, int width, const int *, void *) {
    return *data = {steps, batch, width}, 0;
}

int cudnnGetRNNWeightParams(Handle *, Recurrence *cell, int direction, size_t, const void *weights, int which,
                            Tensor *matrix, void **matrix_begin, Tensor *bias, void **bias_begin) {
    *matrix = {{1, cell->hidden, which < cell->gates() ? cell->inputs : cell->hidden}, cell->type};
    *bias = {{1, cell->hidden, 1}, cell->type};
    auto at = [&](size_t k) {
        return static_cast<char *>(const_cast<void *>(weights)) + width(cell->type) * (direction * cell->size() + k);
    };
    return *matrix_begin = at(cell->matrix(which)), *bias_begin = at(cell->bias(which)), 0;
}

int cudnnGetRNNTempSpaceSizes(Handle *, Recurrence *, int, Data *, size_t *work, size_t *reserve) {
    return *work = 256, *reserve = 0, 0;
}

int cudnnRNNForward(Handle *handle, Recurrence *given, int, const int32_t *lengths, Data *x_shape, const void *x, Data *,
                    void *y, Tensor *, const void *hx, void *hy, Tensor *, const void *cx, void *cy, size_t,
                    const void *weights, size_t, void *, size_t, void *) {
    queue(handle->stream, [=, cell = *given, shape = *x_shape] {
        Sequences all{reach(lengths, "lengths"), reach(x, "inputs"), reach_if(hx), reach_if(cx),
                      reach(y, "outputs"), reach_if(hy), reach_if(cy)};
        for (int direction = 0; direction < cell.directions; direction++) {
            auto own = read(reach(weights, "weights"), cell.type, direction * cell.size(), cell.size());
            for (int row = 0; row < shape.batch; row++) all.run(cell, shape, own, row, direction);
        }
    });
    return 0;
}
}
