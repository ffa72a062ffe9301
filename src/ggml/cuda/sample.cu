// Draws a token from each row of logits that ggml's CUDA backend has left on the device: what src/sample does on the CPU, up
// to the rounding of sums: banned tokens, temperature, top-k, top-p, min-p. One block draws one token; a row of up to 56,000 tokens stays in shared memory.
#include <cstdint>
#include <cuda_runtime.h>

namespace {

constexpr int THREADS = 1024;
constexpr int WARPS = THREADS / 32;
constexpr uint32_t ONE = 0x3f800000; // the bits of 1.0f: weights are 0 to 1, and ordered as their bits are

// How the token of a row is chosen. `DrawRow` in src/ggml/draw.rs.
struct Row {
    double uniform;
    float temperature; // 0 takes the most likely token
    uint32_t top_k;    // 0 is no limit
    float top_p;       // 1 is no limit
    float min_p;       // 0 is no limit
    int32_t banned;    // the sequence whose banned tokens count; below 0: none
    int32_t unused;
};
static_assert(sizeof(Row) == 32, "as in src/ggml/draw.rs");

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

// The sums of three values.
__device__ void reduce3(double (&values)[3], double (*scratch)[WARPS]) {
    for (int j = 0; j < 3; j++) {
        for (int step = 16; step > 0; step /= 2) {
            values[j] += __shfl_xor_sync(~0u, values[j], step);
        }
    }
    __syncthreads(); // as above
    if (threadIdx.x % 32 < 3) {
        scratch[threadIdx.x % 32][threadIdx.x / 32] = values[threadIdx.x % 32];
    }
    __syncthreads();
    for (int j = 0; j < 3; j++) {
        values[j] = scratch[j][threadIdx.x % 32];
        for (int step = 16; step > 0; step /= 2) {
            values[j] += __shfl_xor_sync(~0u, values[j], step);
        }
    }
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
    draw(float *logits, const float *bias, const Row *rows, const uint32_t *all_banned, int32_t *tokens, const int vocab,
         const int mask) {
    extern __shared__ float in_shared[];
    __shared__ double doubles[WARPS];
    __shared__ double triples[3][WARPS];
    __shared__ float floats[WARPS];
    __shared__ int ints[WARPS];
    __shared__ int chosen;

    const int tid = threadIdx.x;
    const Row params = rows[blockIdx.x];
    const float inverse = params.temperature == 0.0f ? 0.0f : fminf(1.0f / params.temperature, 3.402823466e38f);
    const uint32_t *banned = params.banned < 0 ? nullptr : all_banned + size_t(params.banned) * ((vocab + 31) / 32);
    float *row = logits + size_t(blockIdx.x) * vocab;
    float *weights = SHARED ? in_shared : row;

    float most = -INFINITY;
    int broken = 0;
    for (int i = tid; i < vocab; i += THREADS) {
        float x = row[i] + bias[i];
        broken |= isnan(x) || x == INFINITY;
        if (i == mask || (banned && (banned[i / 32] >> (i % 32) & 1))) {
            x = -INFINITY;
        }
        most = fmaxf(most, x);
        weights[i] = x;
    }
    most = reduce(most, Max(), floats);
    broken = reduce(broken, Max(), ints);
    if (broken || most == -INFINITY) {
        if (tid == 0) {
            tokens[blockIdx.x] = -1;
        }
        return;
    }
    if (inverse == 0.0f) {
        int first = vocab;
        for (int i = tid; i < vocab; i += THREADS) {
            if (weights[i] == most && i < first) {
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
        weights[i] = weights[i] == -INFINITY ? 0.0f : expf(fminf(0.0f, (weights[i] - most) * inverse));
    }
    __syncthreads();

    if (params.top_k > 0 && params.top_k < uint32_t(vocab)) {
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

    // Tokens above the threshold are kept, and so many of those at it.
    float threshold = 0.0f;
    int kept_at = 0;
    if (params.top_p < 1.0f) {
        // Sums of a thread's weights are single, sums of threads double.
        float own = 0.0f;
        for (int i = tid; i < vocab; i += THREADS) {
            own += weights[i];
        }
        const double limit = double(params.top_p) * reduce(double(own), Add(), doubles);
        // The smallest threshold above which there is no more than the limit: it is above `low` and at most `high`, above
        // which there is the mass `above`. Weights outside no longer count; a thread remembers which of its own do, as long
        // as it has no more than 64.
        uint32_t low = 0, high = ONE;
        double above = 0.0;
        const bool remembers = vocab <= 64 * THREADS;
        uint64_t within = ~uint64_t(0);
        while (high - low > 1) {
            const uint32_t quarter = max(1u, (high - low) / 4);
            uint32_t at[3];
            float sums[3] = {0.0f, 0.0f, 0.0f};
            for (int j = 0; j < 3; j++) {
                at[j] = min(low + (j + 1) * quarter, high - 1);
            }
            for (int i = tid, place = 0; i < vocab; i += THREADS, place++) {
                if (remembers) {
                    const uint64_t left = within >> place;
                    if (left == 0) {
                        break;
                    }
                    const int skipped = __ffsll(left) - 1;
                    place += skipped;
                    i += skipped * THREADS;
                    if (i >= vocab) {
                        break;
                    }
                }
                const uint32_t bits = __float_as_uint(weights[i]);
                if (bits <= low || bits > high) {
                    within &= ~(uint64_t(1) << (place % 64));
                    continue;
                }
                for (int j = 0; j < 3; j++) {
                    sums[j] += bits > at[j] ? weights[i] : 0.0f;
                }
            }
            double masses[3] = {sums[0], sums[1], sums[2]};
            reduce3(masses, triples);
            const double before = above;
            for (int j = 2; j >= 0; j--) {
                const double mass = before + masses[j];
                if (mass > limit) {
                    low = at[j];
                    break;
                }
                high = at[j];
                above = mass;
            }
        }
        threshold = as_float(high);
        const double more = (limit - above) / double(threshold);
        kept_at = more < double(vocab) ? int(more) + 1 : vocab;
    }

    // Whether a token stays, of which `at` before it are at the threshold. The largest weight is 1.
    const auto keeps = [&](float weight, int &at) {
        const bool in_nucleus = weight > threshold || (weight == threshold && weight > 0.0f && at++ < kept_at);
        return in_nucleus && weight >= params.min_p;
    };
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
        if (keeps(weight, at)) {
            sum += double(weight);
            last = i;
        }
    }
    const double sum_before = before(sum, doubles);
    const double total = reduce(sum_before + sum, Max(), doubles);
    const double target = params.uniform * total;
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
            if (keeps(weight, at)) {
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

// Draws `count` tokens. `logits` [count, vocab] but for their `bias` [vocab], `rows`, `banned` and `there`, room for the
// tokens, are on the current device; logits may be overwritten. `tokens` are in host memory: -1 where the logits are not finite. Returns CUDA's error
// code.
extern "C" int esolm_cuda_draw(float *logits, const float *bias, size_t count, size_t vocab, uint32_t mask,
                               const void *rows, const uint32_t *banned, int32_t *there, int32_t *tokens) {
    int device = 0, most_shared = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&most_shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    const size_t shared = vocab * sizeof(float);
    const auto all = static_cast<const Row *>(rows);
    cudaError_t error = cudaSuccess;
    if (shared + 2048 <= size_t(most_shared)) {
        // The same for all vocabularies: the function has it once, and other threads may draw for other models.
        error = cudaFuncSetAttribute(draw<true>, cudaFuncAttributeMaxDynamicSharedMemorySize, most_shared - 2048);
        if (error != cudaSuccess) {
            return int(error);
        }
        draw<true><<<unsigned(count), THREADS, shared>>>(logits, bias, all, banned, there, int(vocab), int(mask));
    } else {
        draw<false><<<unsigned(count), THREADS>>>(logits, bias, all, banned, there, int(vocab), int(mask));
    }
    error = cudaGetLastError();
    if (error != cudaSuccess) {
        return int(error);
    }
    return int(cudaMemcpy(tokens, there, count * sizeof(int32_t), cudaMemcpyDeviceToHost));
}
