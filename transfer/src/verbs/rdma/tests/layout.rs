//! The declarations in `sys`, compared with the header that is installed here.

use crate::verbs::rdma::sys;
use std::collections::BTreeMap;
use std::mem::offset_of;
use std::path::Path;
use std::process::Command;

/// What the header is asked, and what `sys` says.
type Facts = Vec<(String, i128)>;

macro_rules! facts {
    ($facts:ident; $($ours:ident = $theirs:literal { $($whole:ident)? $(; $($field:ident $(as $name:literal)?),*)? })*) => {
        $(
            $(
                facts!(@size $whole);
                $facts.push((format!("sizeof(struct {})", $theirs), size_of::<sys::$ours>() as i128));
            )?
            $($({
                let name = facts!(@name $field $($name)?);
                let offset = offset_of!(sys::$ours, $field) as i128;
                $facts.push((format!("offsetof(struct {}, {name})", $theirs), offset));
            })*)?
        )*
    };
    (@size whole) => {};
    (@name $field:ident $name:literal) => { $name };
    (@name $field:ident) => { stringify!($field) };
}

fn structures() -> Facts {
    let mut facts = Facts::new();
    facts!(facts;
        ContextOps = "ibv_context_ops" {
            whole; alloc_mw, dealloc_mw, poll_cq, req_notify_cq, post_send, post_recv
        }
        Context = "ibv_context" { ; device, ops, cmd_fd, async_fd, num_comp_vectors }
        DeviceAttr = "ibv_device_attr" {
            whole; node_guid, max_mr_size, vendor_id, max_qp, max_qp_wr, device_cap_flags, max_sge,
            max_cqe, max_qp_rd_atom, max_qp_init_rd_atom, max_mw, max_srq_sge, max_pkeys,
            phys_port_cnt
        }
        PortAttr = "ibv_port_attr" {
            whole; state, active_mtu, gid_tbl_len, max_msg_sz, lid, phys_state, link_layer, flags,
            port_cap_flags2
        }
        GidEntry = "ibv_gid_entry" { whole; gid, gid_index, port_num, gid_type, ndev_ifindex }
        AsyncEvent = "ibv_async_event" { whole; element, event_type }
        Mr = "ibv_mr" { whole; context, pd, addr, length, handle, lkey, rkey }
        Mw = "ibv_mw" { whole; context, pd, rkey, handle, kind as "type" }
        MwBindInfo = "ibv_mw_bind_info" { whole; mr, addr, length, mw_access_flags }
        CompChannel = "ibv_comp_channel" { whole; context, fd, refcnt }
        Cq = "ibv_cq" { ; context, channel, cq_context, handle, cqe }
        Wc = "ibv_wc" {
            whole; wr_id, status, opcode, vendor_err, byte_len, imm_data, qp_num, src_qp, wc_flags,
            pkey_index, slid, sl, dlid_path_bits
        }
        Qp = "ibv_qp" {
            ; context, qp_context, pd, send_cq, recv_cq, srq, handle, qp_num, state, qp_type
        }
        QpCap = "ibv_qp_cap" {
            whole; max_send_wr, max_recv_wr, max_send_sge, max_recv_sge, max_inline_data
        }
        QpInitAttr = "ibv_qp_init_attr" {
            whole; qp_context, send_cq, recv_cq, srq, cap, qp_type, sq_sig_all
        }
        GlobalRoute = "ibv_global_route" {
            whole; dgid, flow_label, sgid_index, hop_limit, traffic_class
        }
        AhAttr = "ibv_ah_attr" {
            whole; grh, dlid, sl, src_path_bits, static_rate, is_global, port_num
        }
        QpAttr = "ibv_qp_attr" {
            whole; qp_state, path_mtu, rq_psn, sq_psn, dest_qp_num, qp_access_flags, cap, ah_attr,
            alt_ah_attr, pkey_index, max_rd_atomic, max_dest_rd_atomic, min_rnr_timer, port_num,
            timeout, retry_cnt, rnr_retry, alt_port_num, alt_timeout, rate_limit
        }
        Sge = "ibv_sge" { whole; addr, length, lkey }
        SendWr = "ibv_send_wr" {
            whole; wr_id, next, sg_list, num_sge, opcode, send_flags,
            imm_data_or_rkey as "imm_data", wr, qp_type, bind_mw
        }
        RecvWr = "ibv_recv_wr" { whole; wr_id, next, sg_list, num_sge }
    );
    // Members of unnamed structures.
    let wr = offset_of!(sys::SendWr, wr);
    let bind = offset_of!(sys::SendWr, bind_mw);
    let members = [
        ("wr.rdma.remote_addr", wr + offset_of!(sys::RdmaWr, remote_addr)),
        ("wr.rdma.rkey", wr + offset_of!(sys::RdmaWr, rkey)),
        ("invalidate_rkey", offset_of!(sys::SendWr, imm_data_or_rkey)),
        ("bind_mw.mw", bind + offset_of!(sys::BindWr, mw)),
        ("bind_mw.rkey", bind + offset_of!(sys::BindWr, rkey)),
        ("bind_mw.bind_info", bind + offset_of!(sys::BindWr, bind_info)),
    ];
    let named =
        |(name, at): (&str, usize)| (format!("offsetof(struct ibv_send_wr, {name})"), at as i128);
    facts.extend(members.map(named));
    facts
}

fn constants() -> Facts {
    let values: [(&str, i128); 53] = [
        ("IBV_DEVICE_MEM_WINDOW_TYPE_2B", sys::DEVICE_MEM_WINDOW_TYPE_2B.into()),
        ("IBV_PORT_ACTIVE", sys::PORT_ACTIVE.into()),
        ("IBV_PORT_ACTIVE_DEFER", sys::PORT_ACTIVE_DEFER.into()),
        ("IBV_LINK_LAYER_ETHERNET", sys::LINK_LAYER_ETHERNET.into()),
        ("IBV_GID_TYPE_IB", sys::GID_TYPE_IB.into()),
        ("IBV_GID_TYPE_ROCE_V1", sys::GID_TYPE_ROCE_V1.into()),
        ("IBV_GID_TYPE_ROCE_V2", sys::GID_TYPE_ROCE_V2.into()),
        ("IBV_EVENT_CQ_ERR", sys::EVENT_CQ_ERR.into()),
        ("IBV_EVENT_QP_FATAL", sys::EVENT_QP_FATAL.into()),
        ("IBV_EVENT_QP_REQ_ERR", sys::EVENT_QP_REQ_ERR.into()),
        ("IBV_EVENT_QP_ACCESS_ERR", sys::EVENT_QP_ACCESS_ERR.into()),
        ("IBV_EVENT_DEVICE_FATAL", sys::EVENT_DEVICE_FATAL.into()),
        ("IBV_EVENT_PORT_ACTIVE", sys::EVENT_PORT_ACTIVE.into()),
        ("IBV_EVENT_PORT_ERR", sys::EVENT_PORT_ERR.into()),
        ("IBV_EVENT_LID_CHANGE", sys::EVENT_LID_CHANGE.into()),
        ("IBV_EVENT_GID_CHANGE", sys::EVENT_GID_CHANGE.into()),
        ("IBV_ACCESS_LOCAL_WRITE", sys::ACCESS_LOCAL_WRITE.into()),
        ("IBV_ACCESS_REMOTE_WRITE", sys::ACCESS_REMOTE_WRITE.into()),
        ("IBV_ACCESS_REMOTE_READ", sys::ACCESS_REMOTE_READ.into()),
        ("IBV_ACCESS_MW_BIND", sys::ACCESS_MW_BIND.into()),
        ("IBV_ACCESS_RELAXED_ORDERING", sys::ACCESS_RELAXED_ORDERING.into()),
        ("IBV_MW_TYPE_2", sys::MW_TYPE_2.into()),
        ("IBV_WC_SUCCESS", sys::WC_SUCCESS.into()),
        ("IBV_WC_LOC_PROT_ERR", sys::WC_LOC_PROT_ERR.into()),
        ("IBV_WC_WR_FLUSH_ERR", sys::WC_WR_FLUSH_ERR.into()),
        ("IBV_WC_MW_BIND_ERR", sys::WC_MW_BIND_ERR.into()),
        ("IBV_WC_REM_INV_REQ_ERR", sys::WC_REM_INV_REQ_ERR.into()),
        ("IBV_WC_REM_ACCESS_ERR", sys::WC_REM_ACCESS_ERR.into()),
        ("IBV_WC_REM_OP_ERR", sys::WC_REM_OP_ERR.into()),
        ("IBV_WC_RETRY_EXC_ERR", sys::WC_RETRY_EXC_ERR.into()),
        ("IBV_WC_RNR_RETRY_EXC_ERR", sys::WC_RNR_RETRY_EXC_ERR.into()),
        ("IBV_WC_RECV_RDMA_WITH_IMM", sys::WC_RECV_RDMA_WITH_IMM.into()),
        ("IBV_WC_WITH_IMM", sys::WC_WITH_IMM.into()),
        ("IBV_QPT_RC", sys::QPT_RC.into()),
        ("IBV_QPS_INIT", sys::QPS_INIT.into()),
        ("IBV_QPS_RTR", sys::QPS_RTR.into()),
        ("IBV_QPS_RTS", sys::QPS_RTS.into()),
        ("IBV_QPS_ERR", sys::QPS_ERR.into()),
        ("IBV_QP_STATE | IBV_QP_ACCESS_FLAGS", (sys::QP_STATE | sys::QP_ACCESS_FLAGS).into()),
        ("IBV_QP_PKEY_INDEX | IBV_QP_PORT", (sys::QP_PKEY_INDEX | sys::QP_PORT).into()),
        ("IBV_QP_AV | IBV_QP_PATH_MTU", (sys::QP_AV | sys::QP_PATH_MTU).into()),
        ("IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT", (sys::QP_TIMEOUT | sys::QP_RETRY_CNT).into()),
        ("IBV_QP_RNR_RETRY | IBV_QP_RQ_PSN", (sys::QP_RNR_RETRY | sys::QP_RQ_PSN).into()),
        ("IBV_QP_MAX_QP_RD_ATOMIC", sys::QP_MAX_QP_RD_ATOMIC.into()),
        ("IBV_QP_MAX_DEST_RD_ATOMIC", sys::QP_MAX_DEST_RD_ATOMIC.into()),
        ("IBV_QP_MIN_RNR_TIMER | IBV_QP_SQ_PSN", (sys::QP_MIN_RNR_TIMER | sys::QP_SQ_PSN).into()),
        ("IBV_QP_DEST_QPN", sys::QP_DEST_QPN.into()),
        ("IBV_WR_RDMA_WRITE", sys::WR_RDMA_WRITE.into()),
        ("IBV_WR_RDMA_WRITE_WITH_IMM", sys::WR_RDMA_WRITE_WITH_IMM.into()),
        ("IBV_WR_RDMA_READ", sys::WR_RDMA_READ.into()),
        ("IBV_WR_LOCAL_INV", sys::WR_LOCAL_INV.into()),
        ("IBV_WR_BIND_MW", sys::WR_BIND_MW.into()),
        (
            "IBV_SEND_FENCE | (IBV_SEND_SIGNALED << 8)",
            (sys::SEND_FENCE | (sys::SEND_SIGNALED << 8)).into(),
        ),
    ];
    values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Has the C compiler evaluate expressions about the header.
fn ask_the_header(expressions: impl Iterator<Item = String>) -> BTreeMap<String, i128> {
    let dir = tempfile::tempdir().unwrap();
    let (source, program) = (dir.path().join("ask.c"), dir.path().join("ask"));
    let lines = expressions.fold(String::new(), |lines, ask| {
        lines + &format!("  printf(\"%s = %lld\\n\", \"{ask}\", (long long)({ask}));\n")
    });
    let text = format!(
        "#include <infiniband/verbs.h>\n#include <stdio.h>\nint main(void) {{\n{lines}  return 0;\n}}\n"
    );
    std::fs::write(&source, text).unwrap();
    let built = Command::new("cc").arg(&source).arg("-o").arg(&program).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let said = Command::new(&program).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let fact = |line: &str| {
        let (ask, value) = line.rsplit_once(" = ").unwrap();
        (ask.to_owned(), value.parse().unwrap())
    };
    said.lines().map(fact).collect()
}

#[test]
fn structures_and_constants_are_those_of_the_header() {
    let header = "/usr/include/infiniband/verbs.h";
    if !Path::new(header).exists() || Command::new("cc").arg("--version").output().is_err() {
        eprintln!("SKIPPED: no {header} or no cc here (Debian: libibverbs-dev, gcc)");
        return;
    }
    let ours: Facts = structures().into_iter().chain(constants()).collect();
    let theirs = ask_the_header(ours.iter().map(|(ask, _)| ask.clone()));
    let differ: Vec<String> = ours
        .iter()
        .filter(|(ask, value)| theirs.get(ask) != Some(value))
        .map(|(ask, value)| format!("{ask}: here {value}, there {:?}", theirs.get(ask)))
        .collect();
    assert_eq!(differ, Vec::<String>::new());
}
