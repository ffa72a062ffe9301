//! Stands for ggml's functions that say what its kernels were compiled for: here are none of them.

macro_rules! no {
    ($($name:ident)*) => { $(
        /// # Safety
        /// None is needed; ggml's is C's.
        pub unsafe extern "C" fn $name() -> i32 {
            0
        }
    )* };
}

no!(ggml_cpu_has_sse3 ggml_cpu_has_ssse3 ggml_cpu_has_fma ggml_cpu_has_avx ggml_cpu_has_f16c ggml_cpu_has_avx2 ggml_cpu_has_bmi2);
no!(ggml_cpu_has_avx512 ggml_cpu_has_avx512_vbmi ggml_cpu_has_avx512_vnni ggml_cpu_has_avx512_bf16 ggml_cpu_has_avx_vnni);
no!(ggml_cpu_has_fp16_va ggml_cpu_has_dotprod ggml_cpu_has_matmul_int8 ggml_cpu_has_sve ggml_cpu_has_sme);
