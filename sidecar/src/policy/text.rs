//! One text form per value, whether it comes from a flag, the environment or a file.

/// Implements `Deserialize` by way of `FromStr`, so that every source of a value shares one parser
/// and one error sentence.
macro_rules! deserialize_from_str {
    ($($value:ty),+ $(,)?) => {$(
        impl<'de> serde::Deserialize<'de> for $value {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                <String as serde::Deserialize>::deserialize(deserializer)?
                    .parse()
                    .map_err(serde::de::Error::custom)
            }
        }
    )+};
}

pub(crate) use deserialize_from_str;
