use std::cmp::Ordering;

use super::rows::{Rates, Row};
use crate::cli::{
    connections::way,
    table::{Column, TICK},
    units,
};

/// Something about a peer that is shown, and sorted by.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Field {
    Direction,
    Peer,
    Secured,
    Open,
    New,
    #[default]
    Requests,
    Success,
    P50,
    P99,
    In,
    Out,
    Failed,
}

impl Field {
    /// In the order in which they are shown.
    pub(super) const ALL: [Self; 12] = [
        Self::Direction,
        Self::Peer,
        Self::Secured,
        Self::Open,
        Self::New,
        Self::Requests,
        Self::Success,
        Self::P50,
        Self::P99,
        Self::In,
        Self::Out,
        Self::Failed,
    ];

    /// The one that is so many places further on, or back.
    pub(super) fn step(self, places: isize) -> Self {
        let place = Self::ALL.iter().position(|field| *field == self);
        let place = place.unwrap_or_default().cast_signed() + places;
        let place = place.rem_euclid(Self::ALL.len().cast_signed());
        Self::ALL[place.cast_unsigned()]
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Direction => "DIR",
            Self::Peer => "PEER",
            Self::Secured => "SECURED",
            Self::Open => "OPEN",
            Self::New => "NEW/s",
            Self::Requests => "REQ/s",
            Self::Success => "OK",
            Self::P50 => "P50",
            Self::P99 => "P99",
            Self::In => "IN/s",
            Self::Out => "OUT/s",
            Self::Failed => "FAIL",
        }
    }

    pub(super) const fn column(self) -> Column {
        match self {
            Self::Direction | Self::Secured => Column::Left(self.name()),
            Self::Peer => Column::Identity(self.name()),
            _ => Column::Right(self.name()),
        }
    }

    /// Its value for people; nothing where there is none.
    pub(super) fn cell(self, row: &Row) -> String {
        let rate = |value: fn(&Rates) -> f64| row.rates.as_ref().map(value);
        let cell = match self {
            Self::Direction => Some(way(row.direction).to_owned()),
            Self::Peer => Some(row.peer.clone()),
            Self::Secured => Some(row.plain.clone().unwrap_or_else(|| TICK.to_owned())),
            Self::Open => Some(row.open.to_string()),
            Self::New => rate(|rates| rates.opened).map(units::rate),
            Self::Requests => rate(|rates| rates.requests).map(units::rate),
            Self::Success => row.rates.and_then(|rates| rates.success).map(units::share),
            Self::P50 => row.rates.and_then(|rates| rates.p50).map(units::latency),
            Self::P99 => row.rates.and_then(|rates| rates.p99).map(units::latency),
            Self::In => rate(|rates| rates.incoming).map(units::byte_rate),
            Self::Out => rate(|rates| rates.outgoing).map(units::byte_rate),
            Self::Failed => Some(row.failed.to_string()),
        };
        cell.unwrap_or_default()
    }

    /// Which row comes first: words by the alphabet, the largest number, the lowest success, and those
    /// that are not encrypted.
    pub(super) fn compare(self, left: &Row, right: &Row) -> Ordering {
        let rate = |value: fn(&Rates) -> f64| {
            let of = |row: &Row| row.rates.as_ref().map_or(f64::NEG_INFINITY, value);
            of(right).total_cmp(&of(left))
        };
        let success = |row: &Row| row.rates.and_then(|rates| rates.success);
        let order = match self {
            Self::Direction => left.direction.cmp(&right.direction),
            Self::Peer => Ordering::Equal,
            Self::Secured => right.plain.cmp(&left.plain),
            Self::Open => right.open.cmp(&left.open),
            Self::New => rate(|rates| rates.opened),
            Self::Requests => rate(|rates| rates.requests),
            Self::Success => {
                let of = |row| success(row).unwrap_or(f64::INFINITY);
                of(left).total_cmp(&of(right))
            }
            Self::P50 => rate(|rates| rates.p50.unwrap_or_default().as_secs_f64()),
            Self::P99 => rate(|rates| rates.p99.unwrap_or_default().as_secs_f64()),
            Self::In => rate(|rates| rates.incoming),
            Self::Out => rate(|rates| rates.outgoing),
            Self::Failed => right.failed.cmp(&left.failed),
        };
        let by_name = |row: &Row| (row.peer.clone(), row.direction, row.plain.clone());
        order.then_with(|| by_name(left).cmp(&by_name(right)))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::rows::{rows, tests::graphs},
        *,
    };

    fn sorted(field: Field) -> Vec<String> {
        let (before, now) = graphs();
        let mut rows = rows(&before, &now);
        rows.sort_by(|left, right| field.compare(left, right));
        let ends = rows.iter().map(|row| row.peer.rsplit('/').next());
        ends.map(|end| end.expect("a part").to_owned()).collect()
    }

    #[test]
    fn what_matters_comes_first() {
        assert_eq!(sorted(Field::Requests), ["web", "198.18.0.9", "stock"]);
        assert_eq!(sorted(Field::Open), ["stock", "web", "198.18.0.9"]);
        assert_eq!(sorted(Field::Failed), ["198.18.0.9", "stock", "web"]);
        assert_eq!(sorted(Field::Secured), ["198.18.0.9", "stock", "web"]);
        assert_eq!(sorted(Field::In), ["stock", "web", "198.18.0.9"]);
        assert_eq!(sorted(Field::Out), ["web", "stock", "198.18.0.9"]);
        assert_eq!(sorted(Field::Success), ["web", "198.18.0.9", "stock"]);
        assert_eq!(sorted(Field::Peer), ["198.18.0.9", "stock", "web"]);
    }

    #[test]
    fn steps_go_round() {
        assert_eq!(Field::Failed.step(1), Field::Direction);
        assert_eq!(Field::Direction.step(-1), Field::Failed);
        for (place, field) in Field::ALL.iter().enumerate() {
            assert_eq!(Field::Direction.step(place.cast_signed()), *field);
        }
    }
}
