//! Envoy's callbacks in our words. The only file that follows Envoy's pointers.
//!
//! Borrowed bytes live as long as nobody writes the header they came from, so every reader here
//! hands them to a closure or copies; none escapes.

use std::ptr;

use crate::abi::{self, Buffer};
use crate::scope::Steps;
use crate::upgrades::Upgrades;
use crate::walk::{Answer, Routes};

const SCOPE: &[u8] = b"x-scope";

impl Buffer {
    pub(crate) const EMPTY: Buffer = Buffer { ptr: ptr::null(), len: 0 };

    fn of(bytes: &[u8]) -> Buffer {
        Buffer { ptr: bytes.as_ptr(), len: bytes.len() }
    }

    /// # Safety
    /// The buffer came from Envoy, and what it points to is not written for `'a`.
    pub(crate) unsafe fn bytes<'a>(self) -> &'a [u8] {
        if self.ptr.is_null() || self.len == 0 {
            return &[];
        }
        // SAFETY: the caller says so; null was refused above.
        unsafe { std::slice::from_raw_parts(self.ptr, self.len) }
    }
}

/// Writes to Envoy's log, at level error, under the id `dynamic_modules`.
pub(crate) fn log_error(message: &str) {
    // SAFETY: Envoy reads the message during the call only.
    unsafe { abi::envoy_dynamic_module_callback_log(abi::LOG_ERROR, Buffer::of(message.as_bytes())) }
}

/// The headers of a request before Envoy looks at the routes.
pub(crate) struct EarlyRequest(abi::EarlyPtr);

impl EarlyRequest {
    /// # Safety
    /// The pointer is the one that Envoy gave the running hook.
    pub(crate) unsafe fn new(request: abi::EarlyPtr) -> EarlyRequest {
        EarlyRequest(request)
    }

    /// Gives `:authority` (the Host header of HTTP/1), empty where there is none.
    pub(crate) fn with_authority<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        let mut value = Buffer::EMPTY;
        // SAFETY: the pointer is live, the name is read and the value written during the call.
        // The bytes stay as long as the header does, and `look` cannot reach the headers.
        let bytes = unsafe {
            abi::envoy_dynamic_module_callback_early_header_mutation_get_header_value(
                self.0,
                Buffer::of(b":authority"),
                &mut value,
                0,
                ptr::null_mut(),
            );
            value.bytes()
        };
        look(bytes)
    }

    /// Gives the server name of the TLS handshake, empty where there is none.
    pub(crate) fn with_server_name<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        let mut value = Buffer::EMPTY;
        // SAFETY: as above; the name belongs to the connection, which outlives the request.
        let bytes = unsafe {
            abi::envoy_dynamic_module_callback_early_header_mutation_get_attribute_string(
                self.0,
                abi::CONNECTION_REQUESTED_SERVER_NAME,
                &mut value,
            );
            value.bytes()
        };
        look(bytes)
    }

    /// Sets the one value of the scope header, whatever was there.
    pub(crate) fn set_scope(&mut self, scope: &[u8]) {
        self.set(SCOPE, scope);
    }

    pub(crate) fn remove_scope(&mut self) {
        self.remove(SCOPE);
    }

    /// Sets a header to this one value: Envoy removes all the values it had.
    pub(crate) fn set(&mut self, name: &[u8], value: &[u8]) {
        // SAFETY: the pointer is live, name and value are copied during the call.
        unsafe {
            abi::envoy_dynamic_module_callback_early_header_mutation_set_header(
                self.0,
                Buffer::of(name),
                Buffer::of(value),
            );
        }
    }

    /// Removes all the values of a header.
    pub(crate) fn remove(&mut self, name: &[u8]) {
        // SAFETY: the pointer is live, the name is read during the call.
        unsafe {
            abi::envoy_dynamic_module_callback_early_header_mutation_remove_header(self.0, Buffer::of(name));
        }
    }
}

/// One request at the HTTP filter `walk`.
pub(crate) struct Request(abi::FilterPtr);

impl Request {
    /// # Safety
    /// The pointer is the one that Envoy gave the running hook.
    pub(crate) unsafe fn new(filter: abi::FilterPtr) -> Request {
        Request(filter)
    }

    pub(crate) fn is_allowed(&self, upgrades: &Upgrades) -> bool {
        // SAFETY: nothing writes a header before both were read.
        let [connection, upgrade] =
            [&b"connection"[..], b"upgrade"].map(|name| unsafe { self.header(name).bytes() });
        upgrades.allow(connection, upgrade)
    }

    /// Answers 403 as Envoy does to an upgrade that is not allowed.
    pub(crate) fn forbid(&mut self) {
        // SAFETY: the pointer is live, no headers are given, the details are copied.
        unsafe {
            abi::envoy_dynamic_module_callback_http_send_response(
                self.0,
                403,
                ptr::null_mut(),
                0,
                Buffer::EMPTY,
                Buffer::of(b"tidegate_upgrade_not_allowed"),
            );
        }
    }

    /// The first value of a header, null where there is none. Envoy joins the ones that are lists.
    fn header(&self, name: &[u8]) -> Buffer {
        let mut value = Buffer::EMPTY;
        // SAFETY: the pointer is live, the name is read and the value written during the call.
        unsafe {
            abi::envoy_dynamic_module_callback_http_get_header(
                self.0,
                abi::REQUEST_HEADER,
                Buffer::of(name),
                &mut value,
                0,
                ptr::null_mut(),
            );
        }
        value
    }
}

impl Routes for Request {
    fn known(&mut self) -> Answer {
        let mut name = Buffer::EMPTY;
        // SAFETY: the pointer is live; the name belongs to the route that the stream holds, and is
        // read before anything could drop that route.
        unsafe {
            let found = abi::envoy_dynamic_module_callback_http_filter_get_attribute_string(
                self.0,
                abi::XDS_ROUTE_NAME,
                &mut name,
            );
            if found { Answer::of(name.bytes()) } else { Answer::Nothing }
        }
    }

    fn resolve(&mut self) -> Answer {
        // The route name alone never makes Envoy look; asking for the route's cluster does. The
        // metadata asked for exists nowhere: a value of another type would be logged as an error.
        let nowhere = Buffer::of(b"tidegate.none");
        let mut ignored = 0.0;
        // SAFETY: the pointer is live, all arguments are used during the call only.
        unsafe {
            abi::envoy_dynamic_module_callback_http_get_metadata_number(
                self.0,
                abi::METADATA_OF_CLUSTER,
                nowhere,
                nowhere,
                &mut ignored,
            );
        }
        self.known()
    }

    fn ask(&mut self, scope: &[u8]) -> Answer {
        // SAFETY: the pointer is live, name and value are copied during the call.
        unsafe {
            abi::envoy_dynamic_module_callback_http_set_header(
                self.0,
                abi::REQUEST_HEADER,
                Buffer::of(SCOPE),
                Buffer::of(scope),
            );
            // Drops what is known and looks for nothing: that is `resolve`'s part.
            abi::envoy_dynamic_module_callback_http_clear_route_cache(self.0);
        }
        self.resolve()
    }

    fn steps(&mut self) -> Option<Steps> {
        let scope = self.header(SCOPE);
        // SAFETY: the bytes are copied into the steps before any header is written.
        (!scope.ptr.is_null()).then(|| Steps::new(unsafe { scope.bytes() }))
    }
}
