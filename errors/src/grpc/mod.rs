//! Failures over gRPC: to and from `tonic::Status`.

use tonic::Status;

use crate::Error;

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let problem = error.to_problem();
        Self::new(
            tonic::Code::from_i32(i32::from(problem.category().grpc_code())),
            problem.title(),
        )
    }
}
