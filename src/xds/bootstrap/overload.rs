//! What Envoy gives up, and when, before it runs out of memory or connections.

use super::{Share, proto};
use envoy_types::pb::envoy::{
    config::overload::v3::{
        OverloadAction, OverloadManager, ResourceMonitor, ScaleTimersOverloadActionConfig, ScaledTrigger,
        ThresholdTrigger, Trigger, resource_monitor,
        scale_timers_overload_action_config::{ScaleTimer, TimerType, scale_timer::OverloadAdjust},
        trigger::TriggerOneof,
    },
    extensions::resource_monitors::{
        downstream_connections::v3::DownstreamConnectionsConfig, fixed_heap::v3::FixedHeapConfig,
    },
};
use prost::{Message, Name};
use std::time::Duration;

/// How often the heap is looked at.
const REFRESH: Duration = Duration::from_millis(250);
const HEAP: &str = "envoy.resource_monitors.fixed_heap";
const CONNECTIONS: &str = "envoy.resource_monitors.global_downstream_max_connections";

/// In the order in which they begin, as shares of the heap.
const ACTIONS: [(&str, f64); 4] = [
    ("envoy.overload_actions.shrink_heap", 0.90),
    ("envoy.overload_actions.disable_http_keepalive", 0.92),
    ("envoy.overload_actions.stop_accepting_requests", 0.95),
    ("envoy.overload_actions.stop_accepting_connections", 0.98),
];
/// Idle connections are closed sooner and sooner between these.
const TIMERS: (f64, f64) = (0.80, 0.95);
const IDLE_MIN: Duration = Duration::from_secs(2);

pub(super) fn overload_manager(share: Share) -> OverloadManager {
    let Share { heap_bytes, connections } = share;
    let limit = DownstreamConnectionsConfig { max_active_downstream_connections: connections.max(1).into() };
    let mut monitors = vec![monitor(CONNECTIONS, &limit)];
    let mut actions = Vec::new();
    if let Some(max_heap_size_bytes) = heap_bytes {
        monitors.push(monitor(HEAP, &FixedHeapConfig { max_heap_size_bytes, ..FixedHeapConfig::default() }));
        actions.push(reduce_timeouts());
        actions.extend(ACTIONS.map(|(name, value)| OverloadAction {
            name: name.to_owned(),
            triggers: vec![on_heap(TriggerOneof::Threshold(ThresholdTrigger { value }))],
            typed_config: None,
        }));
    }
    OverloadManager {
        refresh_interval: Some(proto::duration(REFRESH)),
        resource_monitors: monitors,
        actions,
        ..OverloadManager::default()
    }
}

fn monitor<M: Message + Name>(name: &str, config: &M) -> ResourceMonitor {
    ResourceMonitor {
        name: name.to_owned(),
        config_type: Some(resource_monitor::ConfigType::TypedConfig(proto::any(config))),
    }
}

fn on_heap(when: TriggerOneof) -> Trigger {
    Trigger { name: HEAP.to_owned(), trigger_oneof: Some(when) }
}

fn reduce_timeouts() -> OverloadAction {
    let (scaling_threshold, saturation_threshold) = TIMERS;
    let when = TriggerOneof::Scaled(ScaledTrigger { scaling_threshold, saturation_threshold });
    let idle = ScaleTimer {
        timer: TimerType::HttpDownstreamConnectionIdle.into(),
        overload_adjust: Some(OverloadAdjust::MinTimeout(proto::duration(IDLE_MIN))),
    };
    OverloadAction {
        name: "envoy.overload_actions.reduce_timeouts".to_owned(),
        triggers: vec![on_heap(when)],
        typed_config: Some(proto::any(&ScaleTimersOverloadActionConfig { timer_scale_factors: vec![idle] })),
    }
}
