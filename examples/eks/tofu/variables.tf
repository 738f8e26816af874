variable "name" {
  description = "Name of everything. The manifests, the values and helmfile.yaml know it as scans."
  type        = string
  default     = "scans"
}

variable "region" {
  description = "Region with at least three zones."
  type        = string
  default     = "eu-central-1"
}

variable "cidr" {
  description = "Addresses of the network. Each scan pod takes one."
  type        = string
  default     = "10.40.0.0/16"
}

variable "kubernetes_version" {
  description = "Version of the control plane."
  type        = string
  default     = "1.34"
}

variable "api_cidrs" {
  description = "Addresses that may reach the Kubernetes API from outside."
  type        = list(string)
}

variable "kafka" {
  description = "Make an MSK cluster too, for those who replace RabbitMQ."
  type        = bool
  default     = false
}
