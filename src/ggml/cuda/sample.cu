// Draws a token from each row of logits that ggml's CUDA backend has left on the device: what src/sampler.rs does on the
// CPU, up to the rounding of sums. One block draws one token; a row of up to 56,000 tokens stays in shared memory.
#include <cstdint>
#include <cuda_runtime.h>

namespace {

constexpr int THREADS = 1024;
constexpr int WARPS = THREADS / 32;
constexpr uint32_t ONE = 0x3f800000; // the bits of 1.0f: weights are 0 to 1, and ordered as their bits are

struct Params {
    int vocab;
    int mask;       // never drawn
    float inverse;  // of the temperature; 0 takes the most likely token
    unsigned top_k; // 0 is no limit
    double top_p;   // 1 is no limit
};

__device__ __forceinline__ float as_float(uint32_t bits) { return __uint_as_float(bits); }

template <typename T, typename F> __device__ T reduce(T value, F combine, T *scratch) {
    for (int step = 16; step > 0; step /= 2) {
        value = combine(value, __shfl_xor_sync(~0u, value, step));
    }
    __syncthreads(); // the scratch memory may still be read for the last result
    if (threadIdx.x % 32 == 0) {
        scratch[threadIdx.x / 32] = value;
    }
    __syncthreads();
    value = scratch[threadIdx.x % 32];
    for (int step = 16; step > 0; step /= 2) {
        value = combine(value, __shfl_xor_sync(~0u, value, step));
    }
    return value;
}

// The sum of the threads' values before this one's.
template <typename T> __device__ T before(T value, T *scratch) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    T sum = value;
    for (int step = 1; step < 32; step *= 2) {
        const T other = __shfl_up_sync(~0u, sum, step);
        if (lane >= step) {
            sum += other;
        }
    }
    __syncthreads();
    if (lane == 31) {
        scratch[warp] = sum;
    }
    __syncthreads();
    T warps = T(0);
    for (int i = 0; i < warp; i++) {
        warps += scratch[i];
    }
    // Not sum - value: that would not be exact.
    const T left = __shfl_up_sync(~0u, sum, 1);
    return warps + (lane > 0 ? left : T(0));
}

struct Add {
    template <typename T> __device__ T operator()(T a, T b) const { return a + b; }
};
struct Max {
    template <typename T> __device__ T operator()(T a, T b) const { return a > b ? a : b; }
};
struct Min {
    template <typename T> __device__ T operator()(T a, T b) const { return a < b ? a : b; }
};

template <bool SHARED>
__global__ void __launch_bounds__(THREADS)
    draw(float *logits, const double *uniforms, int32_t *tokens, const Params params) {
    extern __shared__ float in_shared[];
    __shared__ double doubles[WARPS];
    __shared__ float floats[WARPS];
    __shared__ int ints[WARPS];
    __shared__ int chosen;

    const int vocab = params.vocab, tid = threadIdx.x;
    float *row = logits + size_t(blockIdx.x) * vocab;
    float *weights = SHARED ? in_shared : row;

    float most = -INFINITY;
    int broken = 0;
    for (int i = tid; i < vocab; i += THREADS) {
        const float x = row[i];
        broken |= isnan(x) || x == INFINITY;
        if (i != params.mask && x > most) {
            most = x;
        }
        if (SHARED) {
            weights[i] = x;
        }
    }
    most = reduce(most, Max(), floats);
    broken = reduce(broken, Max(), ints);
    if (broken || most == -INFINITY) {
        if (tid == 0) {
            tokens[blockIdx.x] = -1;
        }
        return;
    }
    if (params.inverse == 0.0f) {
        int first = vocab;
        for (int i = tid; i < vocab; i += THREADS) {
            if (i != params.mask && weights[i] == most && i < first) {
                first = i;
            }
        }
        first = reduce(first, Min(), ints);
        if (tid == 0) {
            tokens[blockIdx.x] = first;
        }
        return;
    }

    for (int i = tid; i < vocab; i += THREADS) {
        weights[i] = i == params.mask ? 0.0f : expf(fminf(0.0f, (weights[i] - most) * params.inverse));
    }
    __syncthreads();

    if (params.top_k > 0 && params.top_k < unsigned(vocab)) {
        // The largest threshold that at least k weights reach.
        uint32_t low = 0, high = ONE + 1;
        while (high - low > 1) {
            const uint32_t middle = low + (high - low) / 2;
            int count = 0;
            for (int i = tid; i < vocab; i += THREADS) {
                count += weights[i] >= as_float(middle);
            }
            count = reduce(count, Add(), ints);
            (count >= int(params.top_k) ? low : high) = middle;
        }
        for (int i = tid; i < vocab; i += THREADS) {
            if (weights[i] < as_float(low)) {
                weights[i] = 0.0f;
            }
        }
        __syncthreads();
    }

    // Sums of a thread's weights are single, sums of threads double.
    const auto mass_above = [&](float threshold) {
        float sum = 0.0f;
        for (int i = tid; i < vocab; i += THREADS) {
            sum += weights[i] > threshold ? weights[i] : 0.0f;
        }
        return reduce(double(sum), Add(), doubles);
    };
    // Tokens above the threshold are kept, and so many of those at it.
    float threshold = 0.0f;
    int kept_at = 0;
    if (params.top_p < 1.0) {
        const double limit = params.top_p * mass_above(0.0f);
        // The smallest threshold above which there is no more than the limit.
        uint32_t low = 0, high = ONE;
        double above = 0.0;
        while (high - low > 1) {
            const uint32_t middle = low + (high - low) / 2;
            const double mass = mass_above(as_float(middle));
            if (mass > limit) {
                low = middle;
            } else {
                high = middle;
                above = mass;
            }
        }
        threshold = as_float(high);
        const double more = (limit - above) / double(threshold);
        kept_at = more < double(vocab) ? int(more) + 1 : vocab;
    }

    // Each thread has a run of neighbours, an odd number of them so that threads meet different banks.
    const int run = ((vocab + THREADS - 1) / THREADS) | 1;
    const int first = min(tid * run, vocab), end = min(first + run, vocab);
    int at = 0;
    for (int i = first; i < end; i++) {
        at += weights[i] == threshold;
    }
    const int at_before = kept_at > 0 ? before(at, ints) : 0;
    double sum = 0.0;
    int last = -1;
    at = at_before;
    for (int i = first; i < end; i++) {
        const float weight = weights[i];
        const bool keep = weight > threshold || (weight == threshold && weight > 0.0f && at++ < kept_at);
        if (keep) {
            sum += double(weight);
            last = i;
        }
    }
    const double sum_before = before(sum, doubles);
    const double total = reduce(sum_before + sum, Max(), doubles);
    const double target = uniforms[blockIdx.x] * total;
    last = reduce(last, Max(), ints);
    if (tid == 0) {
        chosen = last;
    }
    __syncthreads();
    if (sum > 0.0 && sum_before <= target && target < sum_before + sum) {
        double cumulative = sum_before;
        int token = first;
        at = at_before;
        for (int i = first; i < end; i++) {
            const float weight = weights[i];
            const bool keep = weight > threshold || (weight == threshold && weight > 0.0f && at++ < kept_at);
            if (keep) {
                cumulative += double(weight);
                token = i;
                if (cumulative > target) {
                    break;
                }
            }
        }
        atomicMin(&chosen, token);
    }
    __syncthreads();
    if (tid == 0) {
        tokens[blockIdx.x] = chosen;
    }
}

} // namespace

// Draws `rows` tokens. `logits` [rows, vocab] are on the current device and may be overwritten; `uniforms` and `tokens`
// are in host memory, and `uniforms_there` and `tokens_there` are room for them on the device. A token is -1 where the
// logits are not finite. Returns CUDA's error code.
extern "C" int esolm_cuda_draw(float *logits, size_t rows, size_t vocab, uint32_t mask, float temperature, uint32_t top_k,
                               float top_p, const double *uniforms, int32_t *tokens, double *uniforms_there,
                               int32_t *tokens_there) {
    const float inverse = temperature == 0.0f ? 0.0f : fminf(1.0f / temperature, 3.402823466e38f);
    const Params params{int(vocab), int(mask), inverse, top_k, double(top_p)};
    cudaError_t error = cudaMemcpy(uniforms_there, uniforms, rows * sizeof(double), cudaMemcpyHostToDevice);
    if (error != cudaSuccess) {
        return int(error);
    }
    int device = 0, most_shared = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&most_shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    const size_t shared = vocab * sizeof(float);
    if (shared + 2048 <= size_t(most_shared)) {
        error = cudaFuncSetAttribute(draw<true>, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared));
        if (error != cudaSuccess) {
            return int(error);
        }
        draw<true><<<unsigned(rows), THREADS, shared>>>(logits, uniforms_there, tokens_there, params);
    } else {
        draw<false><<<unsigned(rows), THREADS>>>(logits, uniforms_there, tokens_there, params);
    }
    error = cudaGetLastError();
    if (error != cudaSuccess) {
        return int(error);
    }
    return int(cudaMemcpy(tokens, tokens_there, rows * sizeof(int32_t), cudaMemcpyDeviceToHost));
}
