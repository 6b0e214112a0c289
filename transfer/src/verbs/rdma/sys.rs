//! The part of `<infiniband/verbs.h>` that is used, in its own memory layout.
//!
//! Field names are the header's, so that both can be read side by side. Structures that the
//! library allocates are declared only as far as they are read; those that are handed to it are
//! declared whole. A test compares sizes, offsets and constants with the installed header.

#![allow(clippy::struct_field_names, reason = "names are the header's")]

use std::ffi::{c_char, c_int, c_uint, c_void};

/// `enum` of the header: an `unsigned int` on every ABI that Linux has RDMA on.
pub(super) type Enum = c_uint;

/// `struct ibv_device`; only its address is used.
#[repr(C)]
pub(super) struct Device {
    _opaque: [u8; 0],
}

/// `struct ibv_context_ops`: calls that the header makes inline.
#[repr(C)]
pub(super) struct ContextOps {
    _compat_query_device_to_dereg_mr: [*const c_void; 7],
    pub(super) alloc_mw: Option<unsafe extern "C" fn(*mut Pd, Enum) -> *mut Mw>,
    _bind_mw: *const c_void,
    pub(super) dealloc_mw: Option<unsafe extern "C" fn(*mut Mw) -> c_int>,
    _compat_create_cq: *const c_void,
    pub(super) poll_cq: Option<unsafe extern "C" fn(*mut Cq, c_int, *mut Wc) -> c_int>,
    pub(super) req_notify_cq: Option<unsafe extern "C" fn(*mut Cq, c_int) -> c_int>,
    _compat_cq_event_to_destroy_qp: [*const c_void; 12],
    pub(super) post_send:
        Option<unsafe extern "C" fn(*mut Qp, *mut SendWr, *mut *mut SendWr) -> c_int>,
    pub(super) post_recv:
        Option<unsafe extern "C" fn(*mut Qp, *mut RecvWr, *mut *mut RecvWr) -> c_int>,
    _compat_create_ah_to_async_event: [*const c_void; 5],
}

/// `struct ibv_context`, as far as it is read.
#[repr(C)]
pub(super) struct Context {
    pub(super) device: *mut Device,
    pub(super) ops: ContextOps,
    pub(super) cmd_fd: c_int,
    pub(super) async_fd: c_int,
    pub(super) num_comp_vectors: c_int,
}

/// `struct ibv_device_attr`.
#[repr(C)]
pub(super) struct DeviceAttr {
    pub(super) fw_ver: [c_char; 64],
    pub(super) node_guid: u64,
    pub(super) sys_image_guid: u64,
    pub(super) max_mr_size: u64,
    pub(super) page_size_cap: u64,
    pub(super) vendor_id: u32,
    pub(super) vendor_part_id: u32,
    pub(super) hw_ver: u32,
    pub(super) max_qp: c_int,
    pub(super) max_qp_wr: c_int,
    pub(super) device_cap_flags: c_uint,
    pub(super) max_sge: c_int,
    pub(super) max_sge_rd: c_int,
    pub(super) max_cq: c_int,
    pub(super) max_cqe: c_int,
    pub(super) max_mr: c_int,
    pub(super) max_pd: c_int,
    pub(super) max_qp_rd_atom: c_int,
    pub(super) max_ee_rd_atom: c_int,
    pub(super) max_res_rd_atom: c_int,
    pub(super) max_qp_init_rd_atom: c_int,
    pub(super) max_ee_init_rd_atom: c_int,
    pub(super) atomic_cap: Enum,
    pub(super) max_ee: c_int,
    pub(super) max_rdd: c_int,
    pub(super) max_mw: c_int,
    pub(super) max_raw_ipv6_qp: c_int,
    pub(super) max_raw_ethy_qp: c_int,
    pub(super) max_mcast_grp: c_int,
    pub(super) max_mcast_qp_attach: c_int,
    pub(super) max_total_mcast_qp_attach: c_int,
    pub(super) max_ah: c_int,
    pub(super) max_fmr: c_int,
    pub(super) max_map_per_fmr: c_int,
    pub(super) max_srq: c_int,
    pub(super) max_srq_wr: c_int,
    pub(super) max_srq_sge: c_int,
    pub(super) max_pkeys: u16,
    pub(super) local_ca_ack_delay: u8,
    pub(super) phys_port_cnt: u8,
}

pub(super) const DEVICE_MEM_WINDOW_TYPE_2B: c_uint = 1 << 24;

/// `struct ibv_port_attr`. The exported `ibv_query_port` fills all but the last field.
#[repr(C)]
pub(super) struct PortAttr {
    pub(super) state: Enum,
    pub(super) max_mtu: Enum,
    pub(super) active_mtu: Enum,
    pub(super) gid_tbl_len: c_int,
    pub(super) port_cap_flags: u32,
    pub(super) max_msg_sz: u32,
    pub(super) bad_pkey_cntr: u32,
    pub(super) qkey_viol_cntr: u32,
    pub(super) pkey_tbl_len: u16,
    pub(super) lid: u16,
    pub(super) sm_lid: u16,
    pub(super) lmc: u8,
    pub(super) max_vl_num: u8,
    pub(super) sm_sl: u8,
    pub(super) subnet_timeout: u8,
    pub(super) init_type_reply: u8,
    pub(super) active_width: u8,
    pub(super) active_speed: u8,
    pub(super) phys_state: u8,
    pub(super) link_layer: u8,
    pub(super) flags: u8,
    pub(super) port_cap_flags2: u16,
}

pub(super) const PORT_ACTIVE: Enum = 4;
pub(super) const PORT_ACTIVE_DEFER: Enum = 5;
pub(super) const LINK_LAYER_ETHERNET: u8 = 2;

/// `struct ibv_gid_entry`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct GidEntry {
    /// `union ibv_gid`, which holds 64-bit words.
    pub(super) gid: Gid,
    pub(super) gid_index: u32,
    pub(super) port_num: u32,
    pub(super) gid_type: u32,
    pub(super) ndev_ifindex: u32,
}

/// `union ibv_gid`.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(super) struct Gid(pub(super) [u8; 16]);

pub(super) const GID_TYPE_IB: u32 = 0;
pub(super) const GID_TYPE_ROCE_V1: u32 = 1;
pub(super) const GID_TYPE_ROCE_V2: u32 = 2;

/// `struct ibv_async_event`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct AsyncEvent {
    pub(super) element: EventElement,
    pub(super) event_type: Enum,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub(super) union EventElement {
    pub(super) cq: *mut Cq,
    pub(super) qp: *mut Qp,
    pub(super) port_num: c_int,
}

pub(super) const EVENT_CQ_ERR: Enum = 0;
pub(super) const EVENT_QP_FATAL: Enum = 1;
pub(super) const EVENT_QP_REQ_ERR: Enum = 2;
pub(super) const EVENT_QP_ACCESS_ERR: Enum = 3;
pub(super) const EVENT_DEVICE_FATAL: Enum = 8;
pub(super) const EVENT_PORT_ACTIVE: Enum = 9;
pub(super) const EVENT_PORT_ERR: Enum = 10;
pub(super) const EVENT_LID_CHANGE: Enum = 11;
pub(super) const EVENT_GID_CHANGE: Enum = 18;

/// `struct ibv_pd`; only its address is used.
#[repr(C)]
pub(super) struct Pd {
    _opaque: [u8; 0],
}

/// `struct ibv_mr`.
#[repr(C)]
pub(super) struct Mr {
    pub(super) context: *mut Context,
    pub(super) pd: *mut Pd,
    pub(super) addr: *mut c_void,
    pub(super) length: usize,
    pub(super) handle: u32,
    pub(super) lkey: u32,
    pub(super) rkey: u32,
}

pub(super) const ACCESS_LOCAL_WRITE: c_uint = 1;
pub(super) const ACCESS_REMOTE_WRITE: c_uint = 1 << 1;
pub(super) const ACCESS_REMOTE_READ: c_uint = 1 << 2;
pub(super) const ACCESS_MW_BIND: c_uint = 1 << 4;
pub(super) const ACCESS_RELAXED_ORDERING: c_uint = 1 << 20;

/// `struct ibv_mw`.
#[repr(C)]
pub(super) struct Mw {
    pub(super) context: *mut Context,
    pub(super) pd: *mut Pd,
    pub(super) rkey: u32,
    pub(super) handle: u32,
    pub(super) kind: Enum,
}

pub(super) const MW_TYPE_2: Enum = 2;

/// `struct ibv_mw_bind_info`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct MwBindInfo {
    pub(super) mr: *mut Mr,
    pub(super) addr: u64,
    pub(super) length: u64,
    pub(super) mw_access_flags: c_uint,
}

/// `struct ibv_comp_channel`.
#[repr(C)]
pub(super) struct CompChannel {
    pub(super) context: *mut Context,
    pub(super) fd: c_int,
    pub(super) refcnt: c_int,
}

/// `struct ibv_cq`, as far as it is read.
#[repr(C)]
pub(super) struct Cq {
    pub(super) context: *mut Context,
    pub(super) channel: *mut CompChannel,
    pub(super) cq_context: *mut c_void,
    pub(super) handle: u32,
    pub(super) cqe: c_int,
}

/// `struct ibv_wc`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Wc {
    pub(super) wr_id: u64,
    pub(super) status: Enum,
    pub(super) opcode: Enum,
    pub(super) vendor_err: u32,
    pub(super) byte_len: u32,
    /// Network byte order.
    pub(super) imm_data: u32,
    pub(super) qp_num: u32,
    pub(super) src_qp: u32,
    pub(super) wc_flags: c_uint,
    pub(super) pkey_index: u16,
    pub(super) slid: u16,
    pub(super) sl: u8,
    pub(super) dlid_path_bits: u8,
}

pub(super) const WC_SUCCESS: Enum = 0;
pub(super) const WC_LOC_PROT_ERR: Enum = 4;
pub(super) const WC_WR_FLUSH_ERR: Enum = 5;
pub(super) const WC_MW_BIND_ERR: Enum = 6;
pub(super) const WC_REM_INV_REQ_ERR: Enum = 9;
pub(super) const WC_REM_ACCESS_ERR: Enum = 10;
pub(super) const WC_REM_OP_ERR: Enum = 11;
pub(super) const WC_RETRY_EXC_ERR: Enum = 12;
pub(super) const WC_RNR_RETRY_EXC_ERR: Enum = 13;
pub(super) const WC_RECV_RDMA_WITH_IMM: Enum = 129;
pub(super) const WC_WITH_IMM: c_uint = 2;

/// `struct ibv_qp`, as far as it is read.
#[repr(C)]
pub(super) struct Qp {
    pub(super) context: *mut Context,
    pub(super) qp_context: *mut c_void,
    pub(super) pd: *mut Pd,
    pub(super) send_cq: *mut Cq,
    pub(super) recv_cq: *mut Cq,
    pub(super) srq: *mut c_void,
    pub(super) handle: u32,
    pub(super) qp_num: u32,
    pub(super) state: Enum,
    pub(super) qp_type: Enum,
}

/// `struct ibv_qp_cap`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct QpCap {
    pub(super) max_send_wr: u32,
    pub(super) max_recv_wr: u32,
    pub(super) max_send_sge: u32,
    pub(super) max_recv_sge: u32,
    pub(super) max_inline_data: u32,
}

/// `struct ibv_qp_init_attr`.
#[repr(C)]
pub(super) struct QpInitAttr {
    pub(super) qp_context: *mut c_void,
    pub(super) send_cq: *mut Cq,
    pub(super) recv_cq: *mut Cq,
    pub(super) srq: *mut c_void,
    pub(super) cap: QpCap,
    pub(super) qp_type: Enum,
    pub(super) sq_sig_all: c_int,
}

pub(super) const QPT_RC: Enum = 2;

/// `struct ibv_global_route`.
#[repr(C)]
pub(super) struct GlobalRoute {
    pub(super) dgid: Gid,
    pub(super) flow_label: u32,
    pub(super) sgid_index: u8,
    pub(super) hop_limit: u8,
    pub(super) traffic_class: u8,
}

/// `struct ibv_ah_attr`.
#[repr(C)]
pub(super) struct AhAttr {
    pub(super) grh: GlobalRoute,
    pub(super) dlid: u16,
    pub(super) sl: u8,
    pub(super) src_path_bits: u8,
    pub(super) static_rate: u8,
    pub(super) is_global: u8,
    pub(super) port_num: u8,
}

/// `struct ibv_qp_attr`.
#[repr(C)]
pub(super) struct QpAttr {
    pub(super) qp_state: Enum,
    pub(super) cur_qp_state: Enum,
    pub(super) path_mtu: Enum,
    pub(super) path_mig_state: Enum,
    pub(super) qkey: u32,
    pub(super) rq_psn: u32,
    pub(super) sq_psn: u32,
    pub(super) dest_qp_num: u32,
    pub(super) qp_access_flags: c_uint,
    pub(super) cap: QpCap,
    pub(super) ah_attr: AhAttr,
    pub(super) alt_ah_attr: AhAttr,
    pub(super) pkey_index: u16,
    pub(super) alt_pkey_index: u16,
    pub(super) en_sqd_async_notify: u8,
    pub(super) sq_draining: u8,
    pub(super) max_rd_atomic: u8,
    pub(super) max_dest_rd_atomic: u8,
    pub(super) min_rnr_timer: u8,
    pub(super) port_num: u8,
    pub(super) timeout: u8,
    pub(super) retry_cnt: u8,
    pub(super) rnr_retry: u8,
    pub(super) alt_port_num: u8,
    pub(super) alt_timeout: u8,
    pub(super) rate_limit: u32,
}

pub(super) const QPS_INIT: Enum = 1;
pub(super) const QPS_RTR: Enum = 2;
pub(super) const QPS_RTS: Enum = 3;
pub(super) const QPS_ERR: Enum = 6;

pub(super) const QP_STATE: c_int = 1;
pub(super) const QP_ACCESS_FLAGS: c_int = 1 << 3;
pub(super) const QP_PKEY_INDEX: c_int = 1 << 4;
pub(super) const QP_PORT: c_int = 1 << 5;
pub(super) const QP_AV: c_int = 1 << 7;
pub(super) const QP_PATH_MTU: c_int = 1 << 8;
pub(super) const QP_TIMEOUT: c_int = 1 << 9;
pub(super) const QP_RETRY_CNT: c_int = 1 << 10;
pub(super) const QP_RNR_RETRY: c_int = 1 << 11;
pub(super) const QP_RQ_PSN: c_int = 1 << 12;
pub(super) const QP_MAX_QP_RD_ATOMIC: c_int = 1 << 13;
pub(super) const QP_MIN_RNR_TIMER: c_int = 1 << 15;
pub(super) const QP_SQ_PSN: c_int = 1 << 16;
pub(super) const QP_MAX_DEST_RD_ATOMIC: c_int = 1 << 17;
pub(super) const QP_DEST_QPN: c_int = 1 << 20;

/// `struct ibv_sge`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Sge {
    pub(super) addr: u64,
    pub(super) length: u32,
    pub(super) lkey: u32,
}

/// `struct ibv_send_wr`, of whose unions the members for RDMA and windows are declared.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct SendWr {
    pub(super) wr_id: u64,
    pub(super) next: *mut SendWr,
    pub(super) sg_list: *mut Sge,
    pub(super) num_sge: c_int,
    pub(super) opcode: Enum,
    pub(super) send_flags: c_uint,
    /// `imm_data` in network byte order, or `invalidate_rkey`.
    pub(super) imm_data_or_rkey: u32,
    pub(super) wr: RdmaWr,
    pub(super) qp_type: u32,
    pub(super) bind_mw: BindWr,
}

/// `wr.rdma`, as large as the largest member, `wr.atomic`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct RdmaWr {
    pub(super) remote_addr: u64,
    pub(super) rkey: u32,
    pub(super) _rest: [u32; 5],
}

/// `bind_mw`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct BindWr {
    pub(super) mw: *mut Mw,
    pub(super) rkey: u32,
    pub(super) bind_info: MwBindInfo,
}

pub(super) const WR_RDMA_WRITE: Enum = 0;
pub(super) const WR_RDMA_WRITE_WITH_IMM: Enum = 1;
pub(super) const WR_RDMA_READ: Enum = 4;
pub(super) const WR_LOCAL_INV: Enum = 7;
pub(super) const WR_BIND_MW: Enum = 8;

pub(super) const SEND_FENCE: c_uint = 1;
pub(super) const SEND_SIGNALED: c_uint = 1 << 1;

/// `struct ibv_recv_wr`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct RecvWr {
    pub(super) wr_id: u64,
    pub(super) next: *mut RecvWr,
    pub(super) sg_list: *mut Sge,
    pub(super) num_sge: c_int,
}
