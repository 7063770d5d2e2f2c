//! What Envoy calls: the exported functions of the module. Thin: they guard, and hand on.
//!
//! Envoy finds them by name. It wants all hooks of an HTTP filter, used or not.

use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::abi::{Buffer, CONTINUE, EarlyPtr, Enum, FilterPtr, OurPtr, STOP};
use crate::constants::{self, Constant, Value};
use crate::envoy::{EarlyRequest, Request, log_error};
use crate::scope::canonical;
use crate::upgrades::Upgrades;
use crate::walk::walk;

const ABI_VERSION: &CStr = c"v0.2.0";
const _: () = assert!(same(ABI_VERSION.to_bytes(), crate::ABI.as_bytes()));

/// Marker and version in one: whoever cannot load the module (it binds to Envoy's symbols at once,
/// so only Envoy can) finds the version by searching the file for the marker.
static VERSION: &str = concat!("TIDEGATE_MODULE=", env!("CARGO_PKG_VERSION"), "+abi.v0.2.0\0");

/// The module's version and ABI as a C string: `0.1.0+abi.v0.2.0`.
#[unsafe(no_mangle)]
extern "C" fn tidegate_module_version() -> *const c_char {
    // The optimiser must keep marker and version together, so the marker has to look used.
    let marked = std::hint::black_box(VERSION);
    marked["TIDEGATE_MODULE=".len()..].as_ptr().cast()
}

/// Called once when Envoy loads the file.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_program_init() -> *const c_char {
    // The module carries a standard library of its own, so this is nobody else's panic hook.
    std::panic::set_hook(Box::new(report_panic));
    ABI_VERSION.as_ptr()
}

/// Called on the main thread for each listener that has the early mutation. Null refuses it.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_early_header_mutation_config_new(
    _: *mut c_void,
    name: Buffer,
    config: Buffer,
) -> OurPtr {
    guard(std::ptr::null(), || {
        // SAFETY: Envoy keeps both during the call.
        let (name, config) = unsafe { (name.bytes(), config.bytes()) };
        if name != b"scope" {
            return refuse("the early header mutation of this module is named `scope`");
        }
        match constants::parse(config) {
            Ok(constants) => Box::into_raw(Box::new(constants)).cast(),
            Err(error) => refuse(&format!("config of `scope`: {error}")),
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_early_header_mutation_config_destroy(config: OurPtr) {
    guard((), || {
        // SAFETY: the pointer is from `config_new`, and Envoy destroys it once.
        drop(unsafe { Box::from_raw(config.cast::<Vec<Constant>>().cast_mut()) });
    });
}

/// Called for each request on any worker, before the routes are looked at. True goes on to the
/// next early mutation.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_early_header_mutation_mutate(
    config: OurPtr,
    request: EarlyPtr,
) -> bool {
    // SAFETY: the pointer is live during this hook.
    let mut request = unsafe { EarlyRequest::new(request) };
    let done = guard(false, || {
        // SAFETY: the pointer is from `config_new`, not destroyed yet, and only ever read.
        let constants = unsafe { &*config.cast::<Vec<Constant>>() };
        mutate(constants, &mut request);
        true
    });
    if !done {
        // What the client wrote must not be the key: without one there is no route, so a 404.
        guard((), || request.remove_scope());
    }
    true
}

fn mutate(constants: &[Constant], request: &mut EarlyRequest) {
    let key = request.with_authority(canonical);
    request.set_scope(key.as_bytes());
    for Constant { name, value } in constants {
        match value {
            Value::Text(text) => request.set(name.as_bytes(), text.as_bytes()),
            Value::RequestedServerName => {
                let sni = request.with_server_name(|sni| (!sni.is_empty()).then(|| canonical(sni)));
                match sni {
                    Some(sni) => request.set(name.as_bytes(), sni.as_bytes()),
                    None => request.remove(name.as_bytes()),
                }
            }
        }
    }
}

/// Called on the main thread for each filter config. Null refuses it.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_config_new(
    _: *mut c_void,
    name: Buffer,
    config: Buffer,
) -> OurPtr {
    guard(std::ptr::null(), || {
        // SAFETY: Envoy keeps both during the call.
        let (name, config) = unsafe { (name.bytes(), config.bytes()) };
        if name != b"walk" {
            return refuse("the HTTP filter of this module is named `walk`");
        }
        match Upgrades::parse(config) {
            Ok(upgrades) => Box::into_raw(Box::new(upgrades)).cast(),
            Err(error) => refuse(&format!("config of `walk`: {error}")),
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_config_destroy(config: OurPtr) {
    guard((), || {
        // SAFETY: the pointer is from `config_new`, and Envoy destroys it once, after the filters.
        drop(unsafe { Box::from_raw(config.cast::<Upgrades>().cast_mut()) });
    });
}

/// Called for each stream. `walk` keeps nothing between its hooks, so the config stands for it.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_new(config: OurPtr, _: FilterPtr) -> OurPtr {
    config
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_request_headers(
    filter: FilterPtr,
    config: OurPtr,
    _end_of_stream: bool,
) -> Enum {
    guard(CONTINUE, || {
        // SAFETY: the pointer is live during this hook; the config is from `config_new`, not
        // destroyed before its filters, and only ever read.
        let (mut request, upgrades) = unsafe { (Request::new(filter), &*config.cast::<Upgrades>()) };
        if walk(&mut request) && !request.is_allowed(upgrades) {
            request.forbid();
            return STOP;
        }
        CONTINUE
    })
}

/// Hooks that Envoy insists on and that do nothing.
macro_rules! idle {
    ($(fn $name:ident($($argument:ty),*) $(-> $status:ident = $value:expr)?;)*) => {$(
        #[unsafe(no_mangle)]
        extern "C" fn $name($(_: $argument),*) $(-> $status)? {
            $($value)?
        }
    )*};
}

type Headers = *mut c_void;

idle! {
    fn envoy_dynamic_module_on_http_filter_destroy(OurPtr);
    fn envoy_dynamic_module_on_http_filter_stream_complete(FilterPtr, OurPtr);
    fn envoy_dynamic_module_on_http_filter_request_body(FilterPtr, OurPtr, bool) -> Enum = CONTINUE;
    fn envoy_dynamic_module_on_http_filter_request_trailers(FilterPtr, OurPtr) -> Enum = CONTINUE;
    fn envoy_dynamic_module_on_http_filter_response_headers(FilterPtr, OurPtr, bool) -> Enum = CONTINUE;
    fn envoy_dynamic_module_on_http_filter_response_body(FilterPtr, OurPtr, bool) -> Enum = CONTINUE;
    fn envoy_dynamic_module_on_http_filter_response_trailers(FilterPtr, OurPtr) -> Enum = CONTINUE;
    fn envoy_dynamic_module_on_http_filter_http_callout_done(FilterPtr, OurPtr, u64, Enum, Headers, usize, *mut Buffer, usize);
    fn envoy_dynamic_module_on_http_filter_http_stream_headers(FilterPtr, OurPtr, u64, Headers, usize, bool);
    fn envoy_dynamic_module_on_http_filter_http_stream_data(FilterPtr, OurPtr, u64, *const Buffer, usize, bool);
    fn envoy_dynamic_module_on_http_filter_http_stream_trailers(FilterPtr, OurPtr, u64, Headers, usize);
    fn envoy_dynamic_module_on_http_filter_http_stream_complete(FilterPtr, OurPtr, u64);
    fn envoy_dynamic_module_on_http_filter_http_stream_reset(FilterPtr, OurPtr, u64, Enum);
    fn envoy_dynamic_module_on_http_filter_scheduled(FilterPtr, OurPtr, u64);
    fn envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark(FilterPtr, OurPtr);
    fn envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark(FilterPtr, OurPtr);
}

/// Runs a hook; a panic in it gives `otherwise`. What it said is in Envoy's log by then.
fn guard<T>(otherwise: T, run: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        // The payload's own drop may panic, and nobody could catch that one.
        std::mem::forget(panic);
        otherwise
    })
}

/// Says what a panic was. A panic in each request must not also flood the log.
fn report_panic(panic: &PanicHookInfo<'_>) {
    const LOG_EVERY: u64 = 1024;
    static PANICS: AtomicU64 = AtomicU64::new(0);

    let before = PANICS.fetch_add(1, Ordering::Relaxed);
    if before.is_multiple_of(LOG_EVERY) {
        log_error(&format!("tidegate: {panic} ({} panics so far)", before + 1));
    }
}

fn refuse(reason: &str) -> OurPtr {
    log_error(&format!("tidegate: {reason}"));
    std::ptr::null()
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}
