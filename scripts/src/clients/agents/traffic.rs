//! What the router counted of an agent's requests.

/// A call, and the answer from its result.
const REQUESTS_MIN: u64 = 2;

/// What is wrong with the requests of a run that spoke `interface`, by the router's metrics.
pub(super) fn faults(metrics: &str, interface: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (labels, count) in samples(metrics, "baton_requests_total") {
        if !labels.contains("code=\"200\"") {
            faults.push(format!("requests that failed: {count} of {labels}"));
        }
    }
    for (labels, count) in samples(metrics, "baton_answer_warnings_total") {
        if count > 0 {
            faults.push(format!("answers not as the format has them: {count} of {labels}"));
        }
    }
    let answered = answered(metrics, interface);
    if answered < REQUESTS_MIN {
        faults.push(format!("{answered} of {REQUESTS_MIN} requests were answered"));
    }
    faults
}

/// Whether all requests have been counted that a run needs at least.
pub(super) fn complete(metrics: &str, interface: &str) -> bool {
    answered(metrics, interface) >= REQUESTS_MIN
}

fn answered(metrics: &str, interface: &str) -> u64 {
    let labels = format!("api=\"{interface}\",code=\"200\"");
    samples(metrics, "baton_requests_total")
        .filter_map(|(found, count)| (found == labels).then_some(count))
        .sum()
}

/// The labels and values of a counter.
fn samples<'a>(metrics: &'a str, name: &'a str) -> impl Iterator<Item = (&'a str, u64)> {
    metrics.lines().filter_map(move |line| {
        let (labels, value) = line.strip_prefix(name)?.strip_prefix('{')?.split_once("} ")?;
        Some((labels, value.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# TYPE baton_requests_total counter
baton_requests_total{api=\"messages\",code=\"200\"} 2
";

    #[test]
    fn two_answers_and_nothing_else_are_good() {
        assert_eq!(faults(GOOD, "messages"), Vec::<String>::new());
        assert!(complete(GOOD, "messages") && !complete(GOOD, "responses"));
    }

    #[test]
    fn whatever_failed_or_is_missing_is_named() {
        let failed = format!("{GOOD}baton_requests_total{{api=\"none\",code=\"404\"}} 1\n");
        let found = faults(&failed, "messages");
        assert_eq!(found, ["requests that failed: 1 of api=\"none\",code=\"404\""]);
        let misread = format!("{GOOD}baton_answer_warnings_total{{kind=\"unclosed\"}} 1\n");
        assert_eq!(faults(&misread, "messages").len(), 1);
        assert_eq!(faults(GOOD, "responses"), ["0 of 2 requests were answered"]);
    }
}
