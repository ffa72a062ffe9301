//! ggml's version, and what it was compiled with.

use std::ffi::c_void;

use super::device::{route_log, text};

/// ggml's version, and for each of its backends what it was compiled with: "ggml 0.26.0, CPU: SSE3 = 1, AVX = 1".
pub(crate) fn system_info() -> String {
    route_log();
    // SAFETY: a static C string.
    let mut line = format!("ggml {}", text(unsafe { ggml_sys::ggml_version() }));
    // SAFETY: ggml initialises the registry on first use, under its own lock.
    for index in 0..unsafe { ggml_sys::ggml_backend_reg_count() } {
        // SAFETY: the index is below the count; backends live as long as the process, and so does their name.
        let (backend, name) = unsafe {
            let backend = ggml_sys::ggml_backend_reg_get(index);
            (backend, text(ggml_sys::ggml_backend_reg_name(backend)))
        };
        let features: Vec<String> =
            features(backend).into_iter().map(|(name, value)| format!("{name} = {value}")).collect();
        line += &format!(", {name}: {}", features.join(", "));
    }
    line
}

/// What a backend says of itself, by name.
fn features(backend: ggml_sys::ggml_backend_reg_t) -> Vec<(String, String)> {
    let mut all = Vec::new();
    // SAFETY: the backend is valid, and the name a C string. ggml-backend.h says that a function of this name has this type;
    // NULL is `None`.
    let get = unsafe {
        let found =
            ggml_sys::ggml_backend_reg_get_proc_address(backend, c"ggml_backend_get_features".as_ptr());
        std::mem::transmute::<*mut c_void, ggml_sys::ggml_backend_get_features_t>(found)
    };
    let Some(get) = get else { return all };
    // SAFETY: the function takes its own backend; it returns a static array.
    let mut next = unsafe { get(backend) };
    // SAFETY: the array ends with an entry without a name, and nothing behind that is read.
    while let Some(feature) = unsafe { next.as_ref() }.filter(|feature| !feature.name.is_null()) {
        all.push((text(feature.name), text(feature.value)));
        // SAFETY: this was not the last entry.
        next = unsafe { next.add(1) };
    }
    all
}
