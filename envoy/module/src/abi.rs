//! The part of Envoy's dynamic module ABI that we use, declared by hand: ABI v0.2.0, Envoy 1.40.
//!
//! Each line was checked against `source/extensions/dynamic_modules/abi/abi.h` and against the
//! symbols the pinned Envoy exports. Envoy itself hardly checks anything: it warns when the version
//! string differs. A wrong declaration here is undefined behaviour in there, so this file holds
//! declarations only and stays small enough to be read beside the header.
//!
//! The module is linked with immediate binding, so an Envoy without one of these callbacks refuses
//! to load the module instead of dying at the first request.

use std::ffi::c_void;

/// Bytes owned by either side: `..._module_buffer` and `..._envoy_buffer` have one layout.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Buffer {
    pub(crate) ptr: *const u8,
    pub(crate) len: usize,
}

/// C enums cross the border as `int`-sized values.
pub(crate) type Enum = u32;

/// `envoy_dynamic_module_type_http_header_type`
pub(crate) const REQUEST_HEADER: Enum = 0;
/// `envoy_dynamic_module_type_metadata_source`
pub(crate) const METADATA_OF_CLUSTER: Enum = 2;
/// `envoy_dynamic_module_type_attribute_id`
pub(crate) const CONNECTION_REQUESTED_SERVER_NAME: Enum = 30;
pub(crate) const XDS_ROUTE_NAME: Enum = 61;
/// `envoy_dynamic_module_type_log_level`
pub(crate) const LOG_ERROR: Enum = 4;

/// Every `..._status` of the stream hooks has Continue as its first value.
pub(crate) const CONTINUE: Enum = 0;
/// `envoy_dynamic_module_type_on_http_filter_request_headers_status`
pub(crate) const STOP: Enum = 1;

/// An HTTP filter of one stream, Envoy's side.
pub(crate) type FilterPtr = *mut c_void;
/// The headers of one request during early mutation, Envoy's side.
pub(crate) type EarlyPtr = *mut c_void;
/// Whatever a hook of ours returned; Envoy only hands it back.
pub(crate) type OurPtr = *const c_void;

unsafe extern "C" {
    pub(crate) fn envoy_dynamic_module_callback_log(level: Enum, message: Buffer);

    pub(crate) fn envoy_dynamic_module_callback_early_header_mutation_get_header_value(
        request: EarlyPtr,
        name: Buffer,
        value: *mut Buffer,
        index: usize,
        count: *mut usize,
    ) -> bool;
    pub(crate) fn envoy_dynamic_module_callback_early_header_mutation_set_header(
        request: EarlyPtr,
        name: Buffer,
        value: Buffer,
    ) -> bool;
    pub(crate) fn envoy_dynamic_module_callback_early_header_mutation_remove_header(
        request: EarlyPtr,
        name: Buffer,
    ) -> bool;
    pub(crate) fn envoy_dynamic_module_callback_early_header_mutation_get_attribute_string(
        request: EarlyPtr,
        attribute: Enum,
        value: *mut Buffer,
    ) -> bool;

    pub(crate) fn envoy_dynamic_module_callback_http_get_header(
        filter: FilterPtr,
        kind: Enum,
        name: Buffer,
        value: *mut Buffer,
        index: usize,
        count: *mut usize,
    ) -> bool;
    pub(crate) fn envoy_dynamic_module_callback_http_set_header(
        filter: FilterPtr,
        kind: Enum,
        name: Buffer,
        value: Buffer,
    ) -> bool;
    pub(crate) fn envoy_dynamic_module_callback_http_send_response(
        filter: FilterPtr,
        status: u32,
        headers: *mut c_void,
        header_count: usize,
        body: Buffer,
        details: Buffer,
    );
    pub(crate) fn envoy_dynamic_module_callback_http_clear_route_cache(filter: FilterPtr);
    pub(crate) fn envoy_dynamic_module_callback_http_get_metadata_number(
        filter: FilterPtr,
        source: Enum,
        namespace: Buffer,
        key: Buffer,
        value: *mut f64,
    ) -> bool;
    pub(crate) fn envoy_dynamic_module_callback_http_filter_get_attribute_string(
        filter: FilterPtr,
        attribute: Enum,
        value: *mut Buffer,
    ) -> bool;
}
