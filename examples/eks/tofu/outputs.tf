output "kubeconfig" {
  description = "Makes kubectl and helm talk to the cluster."
  value       = "aws eks update-kubeconfig --region ${var.region} --name ${module.eks.cluster_name}"
}

output "manifests" {
  description = "What the cluster must know of what is outside: node class, storage class, the broker's Secret."
  sensitive   = true
  value = templatefile("${path.module}/../manifests/platform.yaml.tftpl", {
    name                = var.name
    node_role           = module.karpenter.node_iam_role_name
    file_system_id      = aws_efs_file_system.sources.id
    rabbitmq_uri        = local.rabbitmq_uri
    rabbitmq_management = local.rabbitmq_management
  })
}
