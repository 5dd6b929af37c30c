//! What `#[derive(Fault)]` writes for the wires whose features are on. The derive is compiled without this crate's
//! features and cannot know them, so it calls these macros, which are empty where a feature is off.

/// Implements axum's `IntoResponse` for a derived fault.
#[cfg(feature = "axum")]
#[doc(hidden)]
#[macro_export]
macro_rules! __fault_response {
    ([$($generics:tt)*] [$ty:ty] [$($bounds:tt)*]) => {
        #[automatically_derived]
        impl $($generics)* $crate::__private::IntoResponse for $ty $($bounds)* {
            fn into_response(self) -> $crate::__private::Response {
                $crate::__private::IntoResponse::into_response(
                    <$crate::Error as ::core::convert::From<$ty>>::from(self),
                )
            }
        }
    };
}

/// Implements axum's `IntoResponse` for a derived fault: nothing, because the feature `axum` is off.
#[cfg(not(feature = "axum"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __fault_response {
    ($($ignored:tt)*) => {};
}

/// Implements `From<Fault> for tonic::Status` for a derived fault.
#[cfg(feature = "tonic")]
#[doc(hidden)]
#[macro_export]
macro_rules! __fault_status {
    ([$($generics:tt)*] [$ty:ty] [$($bounds:tt)*]) => {
        #[automatically_derived]
        impl $($generics)* ::core::convert::From<$ty> for $crate::__private::Status $($bounds)* {
            fn from(fault: $ty) -> Self {
                ::core::convert::Into::into(<$crate::Error as ::core::convert::From<$ty>>::from(fault))
            }
        }
    };
}

/// Implements `From<Fault> for tonic::Status` for a derived fault: nothing, because the feature `tonic` is off.
#[cfg(not(feature = "tonic"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __fault_status {
    ($($ignored:tt)*) => {};
}

/// Implements utoipa's `IntoResponses` for a derived fault.
#[cfg(feature = "utoipa")]
#[doc(hidden)]
#[macro_export]
macro_rules! __fault_openapi {
    ([$($generics:tt)*] [$ty:ty] [$($bounds:tt)*]) => {
        #[automatically_derived]
        impl $($generics)* $crate::__private::IntoResponses for $ty $($bounds)* {
            fn responses() -> ::std::collections::BTreeMap<
                ::std::string::String,
                $crate::__private::RefOr<$crate::__private::ResponseSchema>,
            > {
                $crate::__private::responses(<Self as $crate::Fault>::CATALOG)
            }
        }
    };
}

/// Implements utoipa's `IntoResponses` for a derived fault: nothing, because the feature `utoipa` is off.
#[cfg(not(feature = "utoipa"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __fault_openapi {
    ($($ignored:tt)*) => {};
}
