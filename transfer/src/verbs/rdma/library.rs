//! libibverbs, found when it is first needed.
//!
//! It is never linked: one binary runs where there is no RDMA at all, and takes the host's library
//! with the host's providers where there is. Once loaded it stays, because providers keep state.

use super::DeviceError;
use super::sys::{
    AsyncEvent, CompChannel, Context, Cq, Device, DeviceAttr, GidEntry, Mr, Pd, PortAttr, Qp,
    QpAttr, QpInitAttr,
};
use libloading::Library;
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

/// The name that every distribution gives the library.
pub(super) const NAME: &str = "libibverbs.so.1";

macro_rules! api {
    ($($name:ident = $symbol:literal: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions of libibverbs that are called.
        pub(super) struct Api {
            $(pub(super) $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
            // Last: the functions above are part of it.
            _library: Library,
        }

        impl Api {
            /// Looks up every function.
            fn of(library: Library, name: &str) -> Result<Self, DeviceError> {
                $(
                    // SAFETY: the type is the one that <infiniband/verbs.h> declares for the
                    // symbol, and the pointer is kept only together with the library.
                    let $name = *unsafe { library.get($symbol) }.map_err(|_| {
                        let symbol = $symbol;
                        DeviceError::Symbol { library: name.to_owned(), symbol }
                    })?;
                )*
                Ok(Self { $($name,)* _library: library })
            }
        }
    };
}

api! {
    get_device_list = "ibv_get_device_list": fn(*mut c_int) -> *mut *mut Device;
    free_device_list = "ibv_free_device_list": fn(*mut *mut Device);
    get_device_name = "ibv_get_device_name": fn(*mut Device) -> *const c_char;
    open_device = "ibv_open_device": fn(*mut Device) -> *mut Context;
    close_device = "ibv_close_device": fn(*mut Context) -> c_int;
    query_device = "ibv_query_device": fn(*mut Context, *mut DeviceAttr) -> c_int;
    query_port = "ibv_query_port": fn(*mut Context, u8, *mut PortAttr) -> c_int;
    query_gid_table = "_ibv_query_gid_table":
        fn(*mut Context, *mut GidEntry, usize, u32, usize) -> isize;
    get_async_event = "ibv_get_async_event": fn(*mut Context, *mut AsyncEvent) -> c_int;
    ack_async_event = "ibv_ack_async_event": fn(*mut AsyncEvent);
    alloc_pd = "ibv_alloc_pd": fn(*mut Context) -> *mut Pd;
    dealloc_pd = "ibv_dealloc_pd": fn(*mut Pd) -> c_int;
    reg_mr_iova2 = "ibv_reg_mr_iova2": fn(*mut Pd, *mut c_void, usize, u64, c_uint) -> *mut Mr;
    dereg_mr = "ibv_dereg_mr": fn(*mut Mr) -> c_int;
    create_comp_channel = "ibv_create_comp_channel": fn(*mut Context) -> *mut CompChannel;
    destroy_comp_channel = "ibv_destroy_comp_channel": fn(*mut CompChannel) -> c_int;
    create_cq = "ibv_create_cq":
        fn(*mut Context, c_int, *mut c_void, *mut CompChannel, c_int) -> *mut Cq;
    destroy_cq = "ibv_destroy_cq": fn(*mut Cq) -> c_int;
    get_cq_event = "ibv_get_cq_event":
        fn(*mut CompChannel, *mut *mut Cq, *mut *mut c_void) -> c_int;
    ack_cq_events = "ibv_ack_cq_events": fn(*mut Cq, c_uint);
    create_qp = "ibv_create_qp": fn(*mut Pd, *mut QpInitAttr) -> *mut Qp;
    modify_qp = "ibv_modify_qp": fn(*mut Qp, *mut QpAttr, c_int) -> c_int;
    destroy_qp = "ibv_destroy_qp": fn(*mut Qp) -> c_int;
}

/// The library, loaded on the first call.
pub(super) fn api() -> Result<&'static Api, DeviceError> {
    static API: OnceLock<Api> = OnceLock::new();
    match API.get() {
        Some(api) => Ok(api),
        None => load(NAME).map(|loaded| API.get_or_init(|| loaded)),
    }
}

/// Loads a library of that name, from where the system keeps its libraries.
pub(super) fn load(name: &str) -> Result<Api, DeviceError> {
    // SAFETY: libibverbs' initialisers only read the environment and set up tables.
    let library = unsafe { Library::new(name) }.map_err(|error| DeviceError::Library {
        library: name.to_owned(),
        reason: error.to_string(),
    })?;
    Api::of(library, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_is_an_error_that_says_what_to_install() {
        let name = "libibverbs-that-nobody-has.so.1";
        let error = load(name).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(name) && error.contains("rdma-core"), "{error}");
    }

    #[test]
    fn a_library_without_the_functions_is_too_old() {
        // Every process here has the C library, and that has none of the functions.
        let Err(error) = load("libc.so.6") else { panic!("libc has no verbs") };
        assert!(matches!(error, DeviceError::Symbol { .. }), "{error}");
        assert!(error.to_string().contains("ibv_get_device_list"), "{error}");
    }
}
